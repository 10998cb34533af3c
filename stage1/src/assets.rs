//! Everything the machine is made of that must be opened by name: done before the jail closes the file system.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use contract::{PodDir, PodManifest, erofs_files};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::network::Card;
use crate::plan::{PreparedImage, PreparedRoot};
use vmm::Kvm;

/// Where the stage 1 image keeps its kernel.
const KERNEL: &str = "vmlinux";

/// Where the stage 1 image keeps guest-init.
const INITRAMFS: &str = "initramfs";

/// How every cpio archive (newc) begins, and the name of the entry that ends it.
const CPIO_MAGIC: &[u8] = b"070701";
const CPIO_TRAILER: &[u8] = b"TRAILER!!!";

/// KVM_GET_API_VERSION of every kernel since 2.6.22.
const KVM_API_VERSION: i32 = 12;

/// Where the stage 1 image keeps the file system that a scratch disk begins with.
const SCRATCH_TEMPLATE: &str = "scratch.ext4";

/// Opened files of the machine.
pub struct Assets {
    /// /dev/kvm.
    pub kvm: Kvm,
    /// Uncompressed ELF.
    pub kernel: File,
    /// cpio.
    pub initramfs: File,
    /// Of each app, in order.
    pub images: Vec<PreparedImage>,
    /// The scratch disk, once it is made; `None` = writable layers on a tmpfs.
    pub scratch: Option<File>,
    /// The network cards, once networks are made.
    pub cards: Vec<Card>,
}

impl Assets {
    /// Opens what `pod` runs on.
    ///
    /// # Errors
    /// With what is missing and what to do about it.
    pub fn open(pod: &PodDir, manifest: &PodManifest) -> Result<Self> {
        // First: without KVM the user has nothing from the rest.
        let kvm = open_kvm()?;
        let part = |name: &str, check: fn(&File) -> Result<()>| -> Result<File> {
            let path = pod.stage1_rootfs().join(name);
            let file = File::open(&path)
                .with_context(|| format!("open {} of the stage 1 image", path.display()))?;
            check(&file).with_context(|| {
                format!(
                    "{} of the stage 1 image is damaged or not for this machine; choose another image (--stage1)",
                    path.display()
                )
            })?;
            Ok(file)
        };
        Ok(Self {
            kvm,
            kernel: part(KERNEL, check_kernel)?,
            initramfs: part(INITRAMFS, check_initramfs)?,
            images: images(pod, manifest)?,
            scratch: None,
            cards: Vec::new(),
        })
    }
}

/// Refuses what is no x86-64 ELF file (e_machine 62), of which the loader looks only at the rest.
fn check_kernel(file: &File) -> Result<()> {
    let mut header = [0; 20];
    file.read_exact_at(&mut header, 0)
        .context("read its header")?;
    ensure!(
        header.starts_with(b"\x7fELF") && header.ends_with(&[62, 0]),
        "it is no x86-64 ELF kernel"
    );
    Ok(())
}

/// Refuses what is no cpio archive up to its end: all that its guest could say is that there is no init.
fn check_initramfs(file: &File) -> Result<()> {
    let length = file.metadata().context("look at it")?.len();
    let (mut start, mut end) = (
        [0; CPIO_MAGIC.len()],
        vec![0; usize::try_from(length.min(512))?],
    );
    file.read_exact_at(&mut start, 0)
        .context("read its start")?;
    ensure!(start == CPIO_MAGIC, "it is no cpio archive");
    file.read_exact_at(&mut end, length.saturating_sub(512))
        .context("read its end")?;
    let is_whole = end
        .windows(CPIO_TRAILER.len())
        .any(|window| window == CPIO_TRAILER);
    ensure!(is_whole, "its end is missing");
    Ok(())
}

/// Opens /dev/kvm, with advice when that fails.
///
/// # Errors
/// When there is no KVM, or none for this user.
pub fn open_kvm() -> Result<Kvm> {
    match Kvm::new() {
        Ok(kvm) if kvm.get_api_version() == KVM_API_VERSION => Ok(kvm),
        Ok(_) => bail!("open /dev/kvm: it is something else than KVM; run `fairing doctor`"),
        Err(error) if error.errno() == libc::ENOENT => bail!(
            "open /dev/kvm: this host has no KVM; run `fairing doctor`, or use scripts/on-kvm for an emulated host"
        ),
        Err(error) if error.errno() == libc::EACCES => bail!(
            "open /dev/kvm: permission denied; add the user to the device's group (`usermod -aG kvm USER`) and log in again"
        ),
        Err(error) => Err(io::Error::from_raw_os_error(error.errno())).context("open /dev/kvm"),
    }
}

/// The images of a pod's apps as stage 0 prepared them, in order.
///
/// # Errors
/// When one is missing.
pub fn images(pod: &PodDir, manifest: &PodManifest) -> Result<Vec<PreparedImage>> {
    let names = manifest.apps.iter().map(|app| &*app.name);
    let image = |app| {
        Ok(PreparedImage {
            root: root(pod, app)?,
            manifest: read_json(&pod.app_image_manifest(app))?,
        })
    };
    names.map(image).collect()
}

fn root(pod: &PodDir, app: &str) -> Result<PreparedRoot> {
    let mut files = Vec::new();
    let mut bytes = 0_u64;
    for path in erofs_files(&pod.app_rootfs_erofs(app)) {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !files.is_empty() => break,
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && pod.app_rootfs(app).is_dir() =>
            {
                return Ok(PreparedRoot::Folder(pod.app_rootfs(app)));
            }
            file => file.with_context(|| format!("open root file system {}", path.display()))?,
        };
        let found = file.metadata();
        let found = found.with_context(|| format!("look at {}", path.display()))?;
        bytes = bytes.saturating_add(found.len());
        files.push(file);
    }
    Ok(PreparedRoot::Erofs { files, bytes })
}

/// Opens the scratch disk that another pod has left.
///
/// # Errors
/// Those of the file system.
pub fn open_scratch_disk(pod: &PodDir) -> Result<File> {
    let path = pod.scratch_disk();
    let disk = OpenOptions::new().read(true).write(true).open(&path);
    disk.with_context(|| format!("open scratch disk {}", path.display()))
}

/// Makes the pod's scratch disk: the template, then a hole up to `bytes`.
///
/// # Errors
/// Those of the file system, and a damaged template.
pub fn make_scratch_disk(pod: &PodDir, bytes: u64) -> Result<File> {
    let template_path = pod.stage1_rootfs().join(SCRATCH_TEMPLATE);
    let path = pod.scratch_disk();
    let template =
        File::open(&template_path).with_context(|| format!("open {}", template_path.display()))?;
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    let disk = options.with_context(|| format!("make scratch disk {}", path.display()))?;
    let length = template
        .metadata()
        .context("look at the scratch template")?
        .len();
    ensure!(
        length <= bytes,
        "scratch template {} is larger than the disk",
        template_path.display()
    );
    copy_without_zeros(&template, &disk, length)
        .with_context(|| format!("write scratch disk {}", path.display()))?;
    disk.set_len(bytes)
        .with_context(|| format!("size scratch disk {} to {bytes} bytes", path.display()))?;
    Ok(disk)
}

/// Copies what holds something; the rest stays a hole.
fn copy_without_zeros(from: &File, to: &File, length: u64) -> io::Result<()> {
    let mut block = [0; 4096];
    let mut offset = 0;
    while let Some(found) = next_datum(from, offset)?.filter(|found| *found < length) {
        offset = found;
        let size = usize::try_from((length - offset).min(4096)).unwrap_or(4096);
        from.read_exact_at(&mut block[..size], offset)?;
        if block[..size].iter().any(|byte| *byte != 0) {
            to.write_all_at(&block[..size], offset)?;
        }
        offset += 4096;
    }
    Ok(())
}

/// Where the next stored byte at or after `offset` is; `None` = only a hole follows.
fn next_datum(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads a JSON file of the pod, bounded.
///
/// # Errors
/// When it cannot be read, is longer than 8 MiB, or is not a `T`.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    use std::io::Read;
    const MAX_BYTES: u64 = 8 << 20;
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut text = String::new();
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
}
