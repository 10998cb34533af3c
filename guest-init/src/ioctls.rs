//! The ioctls of guest-init, each as a safe function with its numbers beside it. Names and layouts are those of the
//! kernel's uapi headers.
#![expect(unsafe_code, reason = "an ioctl's argument is a raw pointer")]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use guest_init::protocol::Window;
use nix::Result;
use nix::libc::{c_char, c_int, c_void};

/// Most random bytes that [`add_entropy`] takes at once.
pub const ENTROPY_LIMIT_BYTES: usize = 512;

mod raw {
    use super::{BlkpgArgument, EntropyPool, InterfaceFlags};
    use nix::libc::{c_int, winsize};

    nix::ioctl_write_ptr_bad!(blkpg, nix::request_code_none!(0x12, 105), BlkpgArgument);
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_write_ptr!(ext4_ioc_resize_fs, b'f', 16, u64);
    nix::ioctl_readwrite!(fifreeze, b'X', 119, c_int);
    nix::ioctl_write_ptr_bad!(
        rndaddentropy,
        nix::request_code_write!(b'R', 3, 8),
        EntropyPool
    );
    nix::ioctl_none!(rndreseedcrng, b'R', 7);
    nix::ioctl_readwrite_bad!(siocgifflags, nix::libc::SIOCGIFFLAGS, InterfaceFlags);
    nix::ioctl_write_ptr_bad!(siocsifflags, nix::libc::SIOCSIFFLAGS, InterfaceFlags);
    nix::ioctl_write_int_bad!(tiocsctty, nix::libc::TIOCSCTTY);
    nix::ioctl_write_int_bad!(tiocgptpeer, nix::libc::TIOCGPTPEER);
    nix::ioctl_write_ptr_bad!(tiocsptlck, nix::libc::TIOCSPTLCK, c_int);
    nix::ioctl_write_ptr_bad!(tiocswinsz, nix::libc::TIOCSWINSZ, winsize);
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
pub struct BlkpgArgument {
    operation: c_int,
    flags: c_int,
    length: c_int,
    partition: *const c_void,
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
pub struct EntropyPool {
    credit_bits: c_int,
    length: c_int,
    bytes: [u8; ENTROPY_LIMIT_BYTES],
}

/// `struct ifreq` as the interface flag calls use it.
#[repr(C)]
pub struct InterfaceFlags {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Adds partition `number` of `length` bytes at byte `start` to an open disk.
pub fn add_partition(disk: &File, number: c_int, start: i64, length: i64) -> Result<()> {
    const BLKPG_ADD_PARTITION: c_int = 1;
    change_partition(
        disk,
        BLKPG_ADD_PARTITION,
        &BlkpgPartition {
            start,
            length,
            number,
            names: [[0; 64]; 2],
        },
    )
}

/// Takes partition `number` off an open disk.
pub fn delete_partition(disk: &File, number: c_int) -> Result<()> {
    const BLKPG_DEL_PARTITION: c_int = 2;
    change_partition(
        disk,
        BLKPG_DEL_PARTITION,
        &BlkpgPartition {
            start: 0,
            length: 0,
            number,
            names: [[0; 64]; 2],
        },
    )
}

fn change_partition(disk: &File, operation: c_int, partition: &BlkpgPartition) -> Result<()> {
    let size = c_int::try_from(size_of::<BlkpgPartition>()).unwrap_or(c_int::MAX);
    let argument = BlkpgArgument {
        operation,
        flags: 0,
        length: size,
        partition: std::ptr::from_ref(partition).cast(),
    };
    // SAFETY: both structures live until the call returns, and the kernel only reads them.
    unsafe { raw::blkpg(disk.as_raw_fd(), &raw const argument) }.map(drop)
}

/// Size of an open disk, bytes.
pub fn disk_bytes(disk: &File) -> Result<u64> {
    let mut bytes = 0;
    // SAFETY: the kernel writes one u64.
    unsafe { raw::blkgetsize64(disk.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

/// Grows the mounted ext4 of an open folder to `blocks` of its blocks.
pub fn grow_ext4(folder: &File, blocks: u64) -> Result<()> {
    // SAFETY: the kernel reads one u64.
    unsafe { raw::ext4_ioc_resize_fs(folder.as_raw_fd(), &raw const blocks) }.map(drop)
}

/// Writes out the file system of an open folder and holds every later write.
pub fn freeze(folder: &File) -> Result<()> {
    let mut unused = 0;
    // SAFETY: the kernel does not use the argument, which points to an int all the same.
    unsafe { raw::fifreeze(folder.as_raw_fd(), &raw mut unused) }.map(drop)
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
    unsafe { raw::rndaddentropy(random.as_raw_fd(), &raw const pool) }?;
    // SAFETY: there is no argument.
    unsafe { raw::rndreseedcrng(random.as_raw_fd()) }.map(drop)
}

/// Brings the network interface `name` up, by any open socket.
pub fn bring_up(socket: &impl AsRawFd, name: &str) -> Result<()> {
    const UP: u16 = 1;
    let mut request = InterfaceFlags {
        name: [0; 16],
        flags: 0,
        rest: [0; 22],
    };
    request
        .name
        .iter_mut()
        .take(15)
        .zip(name.bytes())
        .for_each(|(to, from)| *to = from);
    // SAFETY: the kernel reads and writes one `struct ifreq`, whose size `InterfaceFlags` has.
    unsafe { raw::siocgifflags(socket.as_raw_fd(), &raw mut request) }?;
    request.flags |= UP;
    // SAFETY: as above, only read.
    unsafe { raw::siocsifflags(socket.as_raw_fd(), &raw const request) }.map(drop)
}

/// Makes `terminal` the controlling terminal of the calling session leader.
pub fn control_terminal(terminal: &File) -> Result<()> {
    // SAFETY: the argument is a number.
    unsafe { raw::tiocsctty(terminal.as_raw_fd(), 0) }.map(drop)
}

/// Opens the other side of a pty master, which it unlocks; close-on-exec, and nobody's controlling terminal.
pub fn open_peer(master: &File) -> Result<File> {
    // SAFETY: the kernel reads one int.
    unsafe { raw::tiocsptlck(master.as_raw_fd(), &raw const UNLOCKED) }?;
    let flags = nix::libc::O_RDWR | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
    // SAFETY: the argument is a number.
    let descriptor = unsafe { raw::tiocgptpeer(master.as_raw_fd(), flags) }?;
    // SAFETY: the descriptor was just opened for us alone.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

static UNLOCKED: c_int = 0;

/// Sets the size of a terminal; its foreground processes get SIGWINCH.
pub fn resize(terminal: &File, window: Window) -> Result<()> {
    let size = nix::libc::winsize {
        ws_row: window.rows,
        ws_col: window.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel reads one `struct winsize`.
    unsafe { raw::tiocswinsz(terminal.as_raw_fd(), &raw const size) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<BlkpgArgument>(), 24);
        assert_eq!(size_of::<BlkpgPartition>(), 152);
        assert_eq!(size_of::<InterfaceFlags>(), size_of::<nix::libc::ifreq>());
    }
}
