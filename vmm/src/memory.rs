//! Guest memory: one type throughout the crate.

use vm_memory::GuestMemoryMmap;

/// Guest-physical memory. Clones share the mapping.
pub type GuestMemory = GuestMemoryMmap<()>;
