//! The first thing that is asked of KVM: an empty virtual machine.

use std::io;

use anyhow::{Context, Error, Result, anyhow};
use kvm_ioctls::{Kvm, VmFd};

/// In an error: KVM makes no virtual machine, whatever it is to run.
#[derive(Debug, thiserror::Error)]
#[error("make a virtual machine (KVM_CREATE_VM)")]
pub struct NoVm;

/// Makes it.
///
/// # Errors
/// With [`NoVm`] in them, and what to do about it.
pub fn create(kvm: &Kvm) -> Result<VmFd> {
    kvm.create_vm()
        .map_err(|error| explained(error.errno()))
        .context(NoVm)
}

fn explained(errno: i32) -> Error {
    match errno {
        libc::EBUSY => anyhow!(
            "the CPU's virtualisation is in use: end the machines of the other hypervisor (VirtualBox, VMware) that holds it, or \
             unload its kernel modules"
        ),
        libc::ENODEV | libc::EIO | libc::EOPNOTSUPP => {
            anyhow!("the CPU's virtualisation cannot be switched on: enable it in the firmware")
        }
        errno => io::Error::from_raw_os_error(errno).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rkt#3558: all that was said was the name of an ioctl.
    #[test]
    fn hypervisor_that_holds_the_cpu_is_spoken_of() {
        let said = |errno| format!("{:#}", explained(errno).context(NoVm));
        let busy = said(libc::EBUSY);
        assert!(
            busy.starts_with("make a virtual machine (KVM_CREATE_VM): ")
                && busy.contains("VirtualBox"),
            "{busy}"
        );
        assert!(said(libc::EIO).contains("firmware"));
        assert!(said(libc::ENOMEM).contains("Cannot allocate memory"));
    }
}
