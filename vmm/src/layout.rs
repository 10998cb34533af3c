//! Every guest-physical address, I/O port and interrupt of the machine, in one frozen map. The same for every machine of
//! a version, whatever devices are present, so that a snapshot of one can become another.

use crate::fs::Trust;

/// Size of a page, bytes.
pub const PAGE_BYTES: u64 = 0x1000;

/// Four descriptors for the 64-bit entry.
pub const GDT: u64 = 0x500;
/// Linux boot parameters ("zero page").
pub const BOOT_PARAMS: u64 = 0x7000;
/// Stack pointer at entry; the kernel brings its own stack.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Three pages of page tables: levels 4, 3 and 2.
pub const PAGE_TABLES: u64 = 0x9000;
/// Kernel command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Room for the kernel command line with its NUL, bytes (COMMAND_LINE_SIZE of Linux on x86).
pub const COMMAND_LINE_BYTES: usize = 2048;
/// MP floating pointer, then the MP table; in the last KiB of base memory, where Linux looks for it.
pub const MP_TABLE: u64 = 0x9_fc00;
/// End of base memory.
pub const BASE_MEMORY_END: u64 = 0xa_0000;
/// Start of extended memory.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Start of the hole below 4 GiB that holds all MMIO.
pub const MMIO_HOLE: u64 = 3 << 30;
/// End of the hole; RAM goes on here.
pub const MMIO_HOLE_END: u64 = 4 << 30;

/// Registers of virtio-mmio slot 0.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// Distance of the slots, bytes.
pub const VIRTIO_MMIO_BYTES: u64 = PAGE_BYTES;
/// Interrupt of virtio-mmio slot 0; slot n has n more.
pub const VIRTIO_IRQ: u32 = 10;

/// IO-APIC of the in-kernel irqchip.
pub const IO_APIC: u32 = 0xfec0_0000;
/// Pins of the IO-APIC.
pub const IO_APIC_PINS: u8 = 24;
/// Local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// One page for KVM on Intel without unrestricted guest mode.
pub const IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for KVM, likewise.
pub const TSS: usize = 0xfffb_d000;

/// First port of the write-only serial port that early printk writes to.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Last port of it.
pub const SERIAL_PORT_END: u16 = 0x3ff;
/// Command and status port of the keyboard controller, by which Linux resets.
pub const KEYBOARD_PORT: u16 = 0x64;
/// The port whose first byte written ends the machine.
pub const END_PORT: u16 = 0x600;

/// Most CPUs: the MP table fits its KiB.
pub const MAX_CPUS: u8 = 32;
/// Most network cards.
pub const NETWORK_CARDS: u8 = 6;

/// A place for a virtio-mmio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// Read-only disk of all images.
    ImagesDisk,
    /// Writable disk.
    ScratchDisk,
    /// Control channel.
    Vsock,
    /// Shared folders, by how far the guest trusts what it knows of them.
    Fs(Trust),
    /// Network card, 0 to [`NETWORK_CARDS`] - 1.
    Net(u8),
    /// Memory to plug.
    Mem,
    /// Memory to give back.
    Balloon,
}

/// Number of slots.
pub const SLOTS: usize = 8 + NETWORK_CARDS as usize;

impl Slot {
    /// Position in the map, below [`SLOTS`]; none for a network card beyond [`NETWORK_CARDS`].
    pub fn index(self) -> Option<u8> {
        Some(match self {
            Self::ImagesDisk => 0,
            Self::ScratchDisk => 1,
            Self::Vsock => 2,
            Self::Fs(Trust::Briefly) => 3,
            Self::Fs(Trust::Always) => 4,
            Self::Fs(Trust::Never) => 5,
            Self::Net(card) if card < NETWORK_CARDS => 6 + card,
            Self::Net(_) => return None,
            Self::Mem => 6 + NETWORK_CARDS,
            Self::Balloon => 7 + NETWORK_CARDS,
        })
    }
}

/// Guest-physical address of a slot's registers.
pub fn slot_address(index: u8) -> u64 {
    VIRTIO_MMIO + u64::from(index) * VIRTIO_MMIO_BYTES
}

/// Interrupt of a slot: the same number as ISA IRQ, IO-APIC pin and KVM's GSI.
pub fn slot_irq(index: u8) -> u32 {
    VIRTIO_IRQ + u32::from(index)
}

/// The slot at a guest-physical address, and the offset in its registers.
pub fn slot_at(address: u64) -> Option<(usize, u64)> {
    let offset = address.checked_sub(VIRTIO_MMIO)?;
    let index = usize::try_from(offset / VIRTIO_MMIO_BYTES).ok()?;
    (index < SLOTS).then_some((index, offset % VIRTIO_MMIO_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_each_have_their_own_pin_of_the_io_apic() {
        let slots = [
            Slot::ImagesDisk,
            Slot::ScratchDisk,
            Slot::Vsock,
            Slot::Mem,
            Slot::Balloon,
        ];
        let mut irqs: Vec<u32> = slots
            .into_iter()
            .chain(Trust::ALL.map(Slot::Fs))
            .chain((0..NETWORK_CARDS).map(Slot::Net))
            .map(|slot| slot_irq(slot.index().unwrap()))
            .collect();
        irqs.sort_unstable();
        irqs.dedup();
        assert_eq!(irqs.len(), SLOTS);
        assert!(irqs.into_iter().all(|irq| irq < u32::from(IO_APIC_PINS)));
        assert_eq!(Slot::Net(NETWORK_CARDS).index(), None);
    }

    #[test]
    fn slot_at_finds_first_and_last_byte_and_nothing_outside() {
        assert_eq!(slot_at(VIRTIO_MMIO), Some((0, 0)));
        let last = VIRTIO_MMIO + VIRTIO_MMIO_BYTES * SLOTS as u64 - 1;
        assert_eq!(slot_at(last), Some((SLOTS - 1, 0xfff)));
        assert_eq!(slot_at(last + 1), None);
        assert_eq!(slot_at(VIRTIO_MMIO - 1), None);
        assert_eq!(slot_at(u64::MAX), None);
    }
}
