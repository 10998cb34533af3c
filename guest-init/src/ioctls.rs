//! The ioctls of guest-init that no crate has, each as a safe function with its number beside it. Names and layouts are those of
//! the kernel's uapi headers.
#![expect(
    unsafe_code,
    reason = "an ioctl's argument is whatever its number says"
)]

use std::fs::File;
use std::io::{self, Write};

use libc::{c_char, c_int};
use rustix::io::Result;
use rustix::ioctl::{NoArg, Opcode, Setter, ioctl, opcode};

const BLKPG: Opcode = opcode::none(0x12, 105);
const FIFREEZE: Opcode = opcode::read_write::<c_int>(b'X', 119);
const RNDADDTOENTCNT: Opcode = opcode::write::<c_int>(b'R', 1);
const RNDRESEEDCRNG: Opcode = opcode::none(b'R', 7);

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

/// Mixes `seed` into the kernel's pool, credited in full, and makes its generator take it up.
pub fn add_entropy(mut random: &File, seed: &[u8]) -> io::Result<()> {
    random.write_all(seed)?;
    let credit_bits = c_int::try_from(seed.len() * 8).unwrap_or(c_int::MAX);
    // SAFETY: the kernel reads one int.
    unsafe { ioctl(random, Setter::<RNDADDTOENTCNT, _>::new(credit_bits)) }?;
    // SAFETY: there is no argument.
    unsafe { ioctl(random, NoArg::<RNDRESEEDCRNG>::new()) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<BlkpgArgument>(), 24);
        assert_eq!(size_of::<BlkpgPartition>(), 152);
    }
}
