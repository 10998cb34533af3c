//! A root file system of our own on a tmpfs, with everything that is measured in it: no file system of the machine is
//! asked while a clock that counts instructions runs. It goes with this process's mount namespace.

use std::fs;
use std::os::unix::fs::chroot;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::subject::{IMAGE, IMAGES_DISK, KERNEL, PEER_INITRAMFS};

const FOLDER: &str = "/run/fairing-bench";
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// What QEMU's microvm machine reads besides kernel and initramfs.
const FIRMWARE: [&str; 4] = [
    "/usr/share/seabios/bios-microvm.bin",
    "/usr/share/qemu/bios-microvm.bin",
    "/usr/share/qemu/qboot.rom",
    "/usr/share/qemu/pvh.bin",
];

/// Copies everything from the working directory's `target` and the folder of test images, imports busybox, and makes the
/// copy this process's root.
pub fn enter(images: &str) -> Result<()> {
    mount_tmpfs(FOLDER, "600M")?;
    let none = None::<&str>;
    copy("target/fairing", "/usr/bin/fairing")?;
    copy_tree("target/stage1-kvm", "/usr/lib/fairing/stage1-kvm")?;
    copy_tree(&format!("{images}/busybox"), "/root/busybox")?;
    copy("target/bench/initramfs", PEER_INITRAMFS)?;
    copy_qemu()?;
    for folder in ["/proc", "/dev", "/sys"] {
        fs::create_dir_all(inside(folder))?;
        mount(
            Some(folder),
            &inside(folder),
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )
        .with_context(|| format!("bind {folder}"))?;
    }
    for folder in ["/tmp", "/run", "/var/tmp"] {
        fs::create_dir_all(inside(folder))?;
    }
    chroot(FOLDER).context("enter the tmpfs")?;
    std::env::set_current_dir("/")?;
    import()
}

/// Mounts a tmpfs of this `size` at `folder`, which goes with a mount namespace of this process's own.
pub fn mount_tmpfs(folder: &str, size: &str) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace: the benchmark needs root")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make mounts private")?;
    fs::create_dir_all(folder)?;
    let options = format!("mode=755,size={size}");
    let (kind, flags) = (Some("tmpfs"), MsFlags::empty());
    mount(kind, folder, kind, flags, Some(&*options)).context("mount a tmpfs")
}

/// Puts busybox into the store, under the name [`IMAGE`], and its disk where the peer finds it.
fn import() -> Result<()> {
    let done = Command::new("/usr/bin/fairing")
        .args(["image", "import", "/root/busybox"])
        .output()
        .context("start fairing")?;
    ensure!(
        done.status.success(),
        "import: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let digest = String::from_utf8(done.stdout)?.trim().to_owned();
    tests::image_disk(Path::new("/var/lib/fairing"), Path::new(IMAGES_DISK))
        .context("copy the image of busybox")?;
    fs::write(IMAGE, digest)?;
    ensure!(
        Path::new(KERNEL).exists(),
        "{KERNEL} is missing: run scripts/pack"
    );
    Ok(())
}

fn copy_qemu() -> Result<()> {
    copy(QEMU, QEMU)?;
    for file in FIRMWARE.iter().filter(|file| Path::new(file).exists()) {
        copy(file, file)?;
    }
    let libraries = Command::new("ldd")
        .arg(QEMU)
        .output()
        .context("start ldd")?;
    for word in String::from_utf8(libraries.stdout)?.split_whitespace() {
        if word.starts_with('/') {
            copy(word, word)?;
        }
    }
    Ok(())
}

fn inside(path: &str) -> PathBuf {
    Path::new(FOLDER).join(path.trim_start_matches('/'))
}

fn copy(from: &str, to: &str) -> Result<()> {
    let to = inside(to);
    fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
    fs::copy(from, &to).with_context(|| format!("copy {from}"))?;
    Ok(())
}

fn copy_tree(from: &str, to: &str) -> Result<()> {
    let to = inside(to);
    fs::create_dir_all(to.parent().context("a folder lies in a folder")?)?;
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(&to)
        .status()
        .context("start cp")?;
    ensure!(status.success(), "copy {from}");
    Ok(())
}
