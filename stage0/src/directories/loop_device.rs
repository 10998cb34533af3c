//! A file as a read-only block device, for as long as something has that open (loop(4), linux/loop.h).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

/// `LO_FLAGS_READ_ONLY`.
const READ_ONLY: u32 = 1;
/// `LO_FLAGS_AUTOCLEAR`: the file is let go of when the device is closed the last time.
const AUTOCLEAR: u32 = 4;

/// How often another process may be faster in taking the free device.
const ATTEMPTS: u32 = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Default)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    names: [[u64; 8]; 2],
    encryption_key: [u64; 4],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Default)]
struct Config {
    file: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

nix::ioctl_none_bad!(
    /// `LOOP_CTL_GET_FREE`.
    get_free,
    0x4c82
);
nix::ioctl_write_ptr_bad!(
    /// `LOOP_CONFIGURE`, of Linux 5.8.
    configure_device,
    0x4c0a,
    Config
);

/// A loop device held open.
pub(super) struct LoopDevice {
    path: PathBuf,
    _open: File,
}

impl LoopDevice {
    /// Makes a device of the file.
    ///
    /// # Errors
    /// If the kernel has no loop devices, or gives none.
    pub(super) fn attach(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let control = File::open("/dev/loop-control")
            .context("open /dev/loop-control (modprobe loop makes it)")?;
        for _ in 0..ATTEMPTS {
            #[expect(unsafe_code, reason = "ioctl")]
            // SAFETY: the ioctl takes no argument and touches no memory.
            let number =
                unsafe { get_free(control.as_raw_fd()) }.context("find a free loop device")?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = File::open(&path).with_context(|| format!("open {}", path.display()))?;
            match configure(&device, &file) {
                Ok(()) => {
                    return Ok(Self {
                        path,
                        _open: device,
                    });
                }
                Err(Errno::EBUSY) => {}
                Err(error) => return Err(error).context(format!("set up {}", path.display())),
            }
        }
        bail!("every free loop device was taken by others, {ATTEMPTS} times")
    }

    /// Its node.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn configure(device: &File, file: &File) -> nix::Result<()> {
    let config = Config {
        file: u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?,
        info: Info {
            flags: READ_ONLY | AUTOCLEAR,
            ..Info::default()
        },
        ..Config::default()
    };
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: the kernel reads a `struct loop_config`, which `Config` is in size and fields, and keeps no pointer to it.
    unsafe { configure_device(device.as_raw_fd(), &raw const config) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_has_the_kernels_size() {
        // linux/loop.h: 8 bytes, loop_info64 of 232, 64 reserved.
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }
}
