//! One microVM on KVM. Knows nothing of pods, images or containers.
//!
//! [`machine::Machine::new`] builds it from a kernel, an initramfs and devices, [`machine::Machine::start`] runs it on
//! threads of its own, and [`running::Running::join`] says how it ended.
#![warn(missing_docs)]

mod bus;
pub mod console;
pub mod device;
pub mod disk;
pub mod end;
pub mod event;
mod faults;
pub mod fs;
pub mod irq;
pub mod layout;
mod lock;
pub mod machine;
mod mapped_file;
pub mod mem;
pub mod memory;
mod mmio;
pub mod net;
mod ports;
pub mod probe;
mod requests;
pub mod running;
mod vcpu;
mod vm;
pub mod vsock;
mod x86_64;

pub use kvm_ioctls::Kvm;
pub use vm::NoVm;
