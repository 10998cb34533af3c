//! One target for each place where a stranger's bytes arrive. A target goes through the same public doors as the
//! program does, so it needs nothing that only tests would use; what it checks is that nothing panics, overflows or
//! hangs, and whatever more can be told of any input at all.
//!
//! Each module has `run`, the target, and `seeds`, valid inputs to begin from.
#![warn(missing_docs)]

pub mod block;
pub mod configuration;
pub mod control;
pub mod fs;
pub mod import;
pub mod layers;
pub mod manifests;
pub mod net;
pub mod pages;
mod queues;
pub mod received;
pub mod registry;
pub mod signatures;
pub mod vsock;

/// A target.
pub struct Target {
    /// Its module's name.
    pub name: &'static str,
    /// What is tried with an input.
    pub run: fn(&[u8]),
    /// Valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($module:ident),*) => {
        [$(Target { name: stringify!($module), run: $module::run, seeds: $module::seeds }),*]
    };
}

/// All targets.
pub const TARGETS: [Target; 13] = targets![
    block,
    configuration,
    control,
    fs,
    import,
    layers,
    manifests,
    net,
    pages,
    received,
    registry,
    signatures,
    vsock
];

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// Set in a process that is root in a user namespace.
    const INSIDE: &str = "FAIRING_FUZZ_INSIDE";

    #[test]
    fn targets_take_their_seeds_whole_and_cut_short() {
        if std::env::var_os(INSIDE).is_none() {
            let this = std::env::current_exe().expect("the path of this program");
            let test = "tests::targets_take_their_seeds_whole_and_cut_short";
            let mut again = Command::new("unshare");
            again.arg("--map-root-user").arg(this);
            let output = again.args(["--exact", test]).env(INSIDE, "1").output();
            let output = output.expect("unshare starts");
            let report = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && report.contains("1 passed"),
                "{output:?}"
            );
            return;
        }
        for super::Target { name, run, seeds } in super::TARGETS {
            let seeds = seeds();
            assert!(!seeds.is_empty(), "{name} has no seeds");
            for seed in seeds {
                run(&seed);
                run(&seed[..seed.len() / 2]);
            }
            run(&[]);
        }
    }
}
