//! What tests of scripts/on-kvm share.

use std::path::Path;
use std::process::Command;

/// scripts/on-kvm with the program under test, and never the machine's own KVM.
pub fn on_kvm() -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/on-kvm");
    let mut command = Command::new(script);
    command
        .env("FAIRING_KVM_HOST", env!("CARGO_BIN_EXE_kvm-host"))
        .env("FAIRING_KVM", "emulated");
    command
}
