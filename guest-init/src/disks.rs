//! The machine's two disks: images, read-only, one partition cut for each image; scratch, an ext4 grown to its disk.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use anyhow::{Context, Result, ensure};
use guest_init::protocol::{IMAGE_SLOT_BYTES, IMAGE_SLOTS, Scratch};
use rustix::fs::{ext4_ioc_resize_fs, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::ioctls;
use crate::machine::open_disk;

const IMAGES_DISK: &str = "/dev/vda";
const SCRATCH_DISK: &str = "/dev/vdb";

/// Where the writable layers of all apps lie.
pub const SCRATCH: &str = "/scratch";

/// Cuts the partition of `image`, `bytes` long, where that is not done yet, and mounts it at `target`.
pub fn mount_image(image: u8, bytes: u64, target: &str) -> Result<()> {
    ensure!(
        image < IMAGE_SLOTS && bytes <= IMAGE_SLOT_BYTES,
        "image {image} of {bytes} bytes does not fit the images disk"
    );
    let (number, start) = (i32::from(image) + 1, u64::from(image) * IMAGE_SLOT_BYTES);
    let disk = open_disk(IMAGES_DISK)?;
    match ioctls::add_partition(&disk, number, start.try_into()?, bytes.try_into()?) {
        Ok(()) => {}
        // Of an earlier life of the app.
        Err(Errno::BUSY) => check_partition(number, bytes)?,
        Err(error) => {
            return Err(error).with_context(|| format!("cut image {image} out of {IMAGES_DISK}"));
        }
    }
    let partition = format!("{IMAGES_DISK}{number}");
    mount(&partition, target, "erofs", MountFlags::RDONLY, None)
        .with_context(|| format!("mount image {image} ({partition})"))
}

/// Refuses a partition that is another's.
fn check_partition(number: i32, bytes: u64) -> Result<()> {
    let partition = open_disk(&format!("{IMAGES_DISK}{number}"))?;
    let size = disk_bytes(&partition).context("read the size of a partition")?;
    ensure!(
        size == bytes,
        "another image, of {size} bytes, is where one of {bytes} bytes should be"
    );
    Ok(())
}

/// Takes the partition of `image` away, which nothing has mounted, so that another image can be where it was.
pub fn forget_image(image: u8) -> Result<()> {
    let disk = open_disk(IMAGES_DISK)?;
    match ioctls::delete_partition(&disk, i32::from(image) + 1) {
        // Its app has never been started.
        Ok(()) | Err(Errno::NXIO) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("give up image {image} of {IMAGES_DISK}")),
    }
}

/// Mounts the apps' scratch space.
pub fn mount_scratch(scratch: Scratch) -> Result<()> {
    match scratch {
        Scratch::Tmpfs => mount("tmpfs", SCRATCH, "tmpfs", MountFlags::empty(), c"mode=700")
            .context("mount the scratch tmpfs"),
        Scratch::Disk => mount_scratch_disk(),
    }
}

/// The template's inode tables are zeros as the sparse disk is, so the kernel need not write them.
fn mount_scratch_disk() -> Result<()> {
    let (flags, options) = (MountFlags::NOATIME, c"noinit_itable");
    mount(SCRATCH_DISK, SCRATCH, "ext4", flags, options)
        .with_context(|| format!("mount the scratch disk {SCRATCH_DISK}"))?;
    let folder = open_disk(SCRATCH)?;
    let block_bytes = fstatvfs(&folder)
        .context("read the size of scratch blocks")?
        .f_bsize;
    let disk = open_disk(SCRATCH_DISK)?;
    let blocks = disk_bytes(&disk).context("read the size of the scratch disk")? / block_bytes;
    ext4_ioc_resize_fs(&folder, blocks)
        .with_context(|| format!("grow the scratch file system to {blocks} blocks"))
}

fn disk_bytes(mut disk: &File) -> io::Result<u64> {
    disk.seek(SeekFrom::End(0))
}

/// Leaves the scratch disk as a clean unmount would, though apps still hold it; later writes wait for ever.
pub fn settle_scratch(scratch: Scratch) -> Result<()> {
    match scratch {
        Scratch::Tmpfs => Ok(()),
        Scratch::Disk => ioctls::freeze(&open_disk(SCRATCH)?).context("write out the scratch disk"),
    }
}
