//! The ioctls of guest-init that no crate has, each as a safe function with its number beside it. Names and layouts are those of
//! the kernel's uapi headers.
#![expect(
    unsafe_code,
    reason = "an ioctl's argument is whatever its number says"
)]

use std::fs::File;
use std::os::fd::AsFd;

use libc::{c_char, c_int};
use rustix::io::Result;
use rustix::ioctl::{NoArg, Opcode, Setter, ioctl, opcode};

/// Most random bytes that [`add_entropy`] takes at once.
pub const ENTROPY_LIMIT_BYTES: usize = 512;

const BLKPG: Opcode = opcode::none(0x12, 105);
const FIFREEZE: Opcode = opcode::read_write::<c_int>(b'X', 119);
const RNDADDENTROPY: Opcode = opcode::write::<[c_int; 2]>(b'R', 3);
const RNDRESEEDCRNG: Opcode = opcode::none(b'R', 7);
const SIOCSIFFLAGS: Opcode = 0x8914;

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgArgument<'a> {
    operation: c_int,
    flags: c_int,
    length: c_int,
    partition: &'a BlkpgPartition,
}

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: c_int,
    names: [[c_char; 64]; 2],
}

/// `struct rand_pool_info` with room for the largest seed.
#[repr(C)]
struct EntropyPool {
    credit_bits: c_int,
    length: c_int,
    bytes: [u8; ENTROPY_LIMIT_BYTES],
}

/// `struct ifreq` as the interface flag calls use it.
#[repr(C)]
struct InterfaceFlags {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Adds partition `number` of `length` bytes at byte `start` to an open disk.
pub fn add_partition(disk: &File, number: c_int, start: i64, length: i64) -> Result<()> {
    const BLKPG_ADD_PARTITION: c_int = 1;
    change_partition(disk, BLKPG_ADD_PARTITION, number, start, length)
}

/// Takes partition `number` off an open disk.
pub fn delete_partition(disk: &File, number: c_int) -> Result<()> {
    const BLKPG_DEL_PARTITION: c_int = 2;
    change_partition(disk, BLKPG_DEL_PARTITION, number, 0, 0)
}

fn change_partition(
    disk: &File,
    operation: c_int,
    number: c_int,
    start: i64,
    length: i64,
) -> Result<()> {
    let partition = BlkpgPartition {
        start,
        length,
        number,
        names: [[0; 64]; 2],
    };
    let argument = BlkpgArgument {
        operation,
        flags: 0,
        length: c_int::try_from(size_of::<BlkpgPartition>()).unwrap_or(c_int::MAX),
        partition: &partition,
    };
    // SAFETY: both structures live until the call returns, and the kernel only reads them.
    unsafe { ioctl(disk, Setter::<BLKPG, _>::new(argument)) }
}

/// Writes out the file system of an open folder and holds every later write.
pub fn freeze(folder: &File) -> Result<()> {
    // SAFETY: the kernel does not use the argument.
    unsafe { ioctl(folder, NoArg::<FIFREEZE>::new()) }
}

/// Mixes `seed` into the kernel's pool, credited in full, and makes its generator take it up. Bytes over
/// [`ENTROPY_LIMIT_BYTES`] are left out.
pub fn add_entropy(random: &File, seed: &[u8]) -> Result<()> {
    let seed = &seed[..seed.len().min(ENTROPY_LIMIT_BYTES)];
    let length = c_int::try_from(seed.len()).unwrap_or(0);
    let mut pool = EntropyPool {
        credit_bits: length * 8,
        length,
        bytes: [0; ENTROPY_LIMIT_BYTES],
    };
    pool.bytes[..seed.len()].copy_from_slice(seed);
    // SAFETY: the kernel reads the two numbers and `length` bytes, which the structure has.
    unsafe { ioctl(random, Setter::<RNDADDENTROPY, _>::new(pool)) }?;
    // SAFETY: there is no argument.
    unsafe { ioctl(random, NoArg::<RNDRESEEDCRNG>::new()) }
}

/// Brings the loopback interface up, by any open socket.
pub fn bring_loopback_up(socket: impl AsFd) -> Result<()> {
    const UP: u16 = 1;
    let mut request = InterfaceFlags {
        name: [0; 16],
        flags: UP,
        rest: [0; 22],
    };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the kernel reads one `struct ifreq`, whose size `InterfaceFlags` has.
    unsafe { ioctl(socket, Setter::<SIOCSIFFLAGS, _>::new(request)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<BlkpgArgument>(), 24);
        assert_eq!(size_of::<BlkpgPartition>(), 152);
        assert_eq!(size_of::<InterfaceFlags>(), size_of::<libc::ifreq>());
    }
}
