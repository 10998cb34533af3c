//! How fast a container's interface may be, as the capability `bandwidth` has it.

use serde_json::json;

use crate::Attachment;

/// Has each interface send, and receive, at most so many `bytes` in a second, if its plugins take rates.
pub fn limit(attachments: &mut [Attachment], bytes: u64) {
    let bits = bytes.saturating_mul(8);
    // What a tenth of a second lets pass, for one that was idle; with less than a frame nothing ever would.
    let burst_bits = (bits / 10).clamp(8 << 16, u32::MAX.into());
    let rates = json!({"ingressRate": bits, "ingressBurst": burst_bits, "egressRate": bits, "egressBurst": burst_bits});
    for attachment in attachments {
        let capabilities = &mut attachment.capabilities;
        capabilities.insert("bandwidth".into(), rates.clone());
    }
}
