//! One target for each place where a stranger's bytes arrive. A target goes through the same public doors as the
//! program does, so it needs nothing that only tests would use; what it checks is that nothing panics, overflows or
//! hangs, and whatever more can be told of any input at all.
//!
//! Each module has `run`, the target, and `seeds`, valid inputs to begin from.
#![warn(missing_docs)]

pub mod block;
pub mod control;
pub mod import;
pub mod layers;
pub mod manifests;
mod queues;
pub mod vsock;

/// The targets by name, each with its seeds.
#[must_use]
pub fn targets() -> Vec<(&'static str, fn(&[u8]), Vec<Vec<u8>>)> {
    vec![
        ("block", block::run, block::seeds()),
        ("control", control::run, control::seeds()),
        ("import", import::run, import::seeds()),
        ("layers", layers::run, layers::seeds()),
        ("manifests", manifests::run, manifests::seeds()),
        ("vsock", vsock::run, vsock::seeds()),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn targets_take_their_seeds_whole_and_cut_short() {
        for (name, run, seeds) in super::targets() {
            assert!(!seeds.is_empty(), "{name} has no seeds");
            for seed in seeds {
                run(&seed);
                run(&seed[..seed.len() / 2]);
            }
            run(&[]);
        }
    }
}
