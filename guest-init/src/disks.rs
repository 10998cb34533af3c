//! The machine's two disks: images, read-only, one partition cut for each image; scratch, an ext4 grown to its disk.

use anyhow::{Context, Result, ensure};
use guest_init::protocol::{IMAGE_SLOT_BYTES, IMAGE_SLOTS, Scratch};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::fstatfs;

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
        Err(Errno::EBUSY) => check_partition(number, bytes)?,
        Err(error) => {
            return Err(error).with_context(|| format!("cut image {image} out of {IMAGES_DISK}"));
        }
    }
    let partition = format!("{IMAGES_DISK}{number}");
    mount(
        Some(&*partition),
        target,
        Some("erofs"),
        MsFlags::MS_RDONLY,
        None::<&str>,
    )
    .with_context(|| format!("mount image {image} ({partition})"))
}

/// Refuses a partition that is another's.
fn check_partition(number: i32, bytes: u64) -> Result<()> {
    let partition = open_disk(&format!("{IMAGES_DISK}{number}"))?;
    let size = ioctls::disk_bytes(&partition).context("read the size of a partition")?;
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
        Ok(()) | Err(Errno::ENXIO) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("give up image {image} of {IMAGES_DISK}")),
    }
}

/// Mounts the apps' scratch space.
pub fn mount_scratch(scratch: Scratch) -> Result<()> {
    match scratch {
        Scratch::Tmpfs => mount(
            Some("tmpfs"),
            SCRATCH,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=700"),
        )
        .context("mount the scratch tmpfs"),
        Scratch::Disk => mount_scratch_disk(),
    }
}

/// The template's inode tables are zeros as the sparse disk is, so the kernel need not write them.
fn mount_scratch_disk() -> Result<()> {
    mount(
        Some(SCRATCH_DISK),
        SCRATCH,
        Some("ext4"),
        MsFlags::MS_NOATIME,
        Some("noinit_itable"),
    )
    .with_context(|| format!("mount the scratch disk {SCRATCH_DISK}"))?;
    let folder = open_disk(SCRATCH)?;
    let block_bytes = u64::try_from(
        fstatfs(&folder)
            .context("read the size of scratch blocks")?
            .block_size(),
    )?;
    let blocks = ioctls::disk_bytes(&open_disk(SCRATCH_DISK)?)
        .context("read the size of the scratch disk")?
        / block_bytes;
    ioctls::grow_ext4(&folder, blocks)
        .with_context(|| format!("grow the scratch file system to {blocks} blocks"))
}

/// Leaves the scratch disk as a clean unmount would, though apps still hold it; later writes wait for ever.
pub fn settle_scratch(scratch: Scratch) -> Result<()> {
    match scratch {
        Scratch::Tmpfs => Ok(()),
        Scratch::Disk => ioctls::freeze(&open_disk(SCRATCH)?).context("write out the scratch disk"),
    }
}
