//! How fast a container's interface may be, as the capability `bandwidth` has it.

use serde_json::{Value, json};

/// What plugins have that take rates.
pub const BANDWIDTH: &str = "bandwidth";

/// The rates of an interface that may send, and receive, so many `bytes` in a second.
pub fn bandwidth(bytes: u64) -> Value {
    let bits = bytes.saturating_mul(8);
    // What a tenth of a second lets pass, for one that was idle; with less than a frame nothing ever would.
    let burst_bits = (bits / 10).clamp(8 << 16, u32::MAX.into());
    json!({"ingressRate": bits, "ingressBurst": burst_bits, "egressRate": bits, "egressBurst": burst_bits})
}
