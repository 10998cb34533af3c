//! The virtio-mmio transport, version 2 only. `registers` is a pure state machine; `transport` wires one to a device's
//! thread and to KVM.

pub mod registers;
pub mod spec;
pub mod transport;
