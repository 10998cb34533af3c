//! The files that every app finds in /etc, written into its root where the image has none or the host gives them, before
//! anything is mounted over it: so no link of the image can lead a write into a kernel file system. Called by `furnish`.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use guest_init::protocol::Boot;

const HOSTS: &str = "/etc/hosts";
const RESOLV: &str = "/etc/resolv.conf";

/// The largest etc/passwd or etc/group that is read, bytes.
const ACCOUNTS_LIMIT_BYTES: u64 = 4 << 20;

/// Keeps the files that the host gives all apps, in the machine's own root.
pub fn keep(boot: &Boot) -> Result<()> {
    make_folder("/etc", 0o755)?;
    for (path, text) in [(HOSTS, &boot.hosts), (RESOLV, &boot.resolv)] {
        if let Some(text) = text {
            replace(path, text)?;
        }
    }
    Ok(())
}

/// Writes what the host gives, and what is missing. The working directory is the machine's root still.
pub fn complete(hostname: &str) -> Result<()> {
    make_folder("/etc", 0o755)?;
    make_folder("/tmp", 0o1777)?;
    replace("/etc/hostname", &format!("{hostname}\n"))?;
    give(HOSTS, &hosts(hostname))?;
    give(RESOLV, "")?;
    match symlink("/proc/self/mounts", "/etc/mtab") {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).context("link /etc/mtab")
        }
        _ => Ok(()),
    }
}

fn hosts(hostname: &str) -> String {
    format!("127.0.0.1 localhost\n::1 localhost\n127.0.0.1 {hostname}\n")
}

/// Makes a folder with exactly `mode`, if there is nothing of that name.
pub fn make_folder(path: &str, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("make {path}")),
    }
}

/// Writes the host's file of this path, or `text` if there is neither that nor one of the image's.
fn give(path: &str, text: &str) -> Result<()> {
    match fs::read_to_string(path.trim_start_matches('/')) {
        Ok(given) => replace(path, &given),
        Err(error) if error.kind() == ErrorKind::NotFound => provide(path, text),
        Err(error) => Err(error).with_context(|| format!("read the host's {path}")),
    }
}

/// Writes `path` if it leads to nothing.
fn provide(path: &str, text: &str) -> Result<()> {
    match Path::new(path).exists() {
        true => Ok(()),
        false => replace(path, text),
    }
}

/// Writes `path` anew, whatever it was.
fn replace(path: &str, text: &str) -> Result<()> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    removed
        .and_then(|()| File::create_new(path)?.write_all(text.as_bytes()))
        .with_context(|| format!("write {path}"))
}

/// Reads one of the image's lists of accounts; a missing one is empty.
pub fn read_accounts(path: &str) -> Result<Vec<u8>> {
    // A FIFO must not hold us up, and what is no file has no accounts.
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file: File = match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.with_context(|| format!("open {path} of the image"))?,
    };
    ensure!(file.metadata()?.is_file(), "{path} of the image is no file");
    let mut bytes = Vec::new();
    file.take(ACCOUNTS_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {path} of the image"))?;
    ensure!(
        bytes.len() as u64 <= ACCOUNTS_LIMIT_BYTES,
        "{path} of the image is larger than {ACCOUNTS_LIMIT_BYTES} bytes"
    );
    Ok(bytes)
}

/// User and group that own a path of the image, a link itself rather than what it means.
pub fn owner(path: &str) -> Result<(u32, u32)> {
    let found = fs::symlink_metadata(path)
        .with_context(|| format!("find the owner of {path} in the image"))?;
    Ok((found.uid(), found.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(folder: &tempfile::TempDir, name: &str) -> String {
        folder.path().join(name).to_str().unwrap().to_owned()
    }

    #[test]
    fn provide_existing_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = path(&folder, "hosts");
        fs::write(&hosts, "mine").unwrap();
        provide(&hosts, "ours").unwrap();
        assert_eq!(fs::read_to_string(&hosts).unwrap(), "mine");
    }

    #[test]
    fn provide_dangling_link_is_replaced_by_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (path(&folder, "resolv.conf"), path(&folder, "elsewhere"));
        symlink(&target, &link).unwrap();
        provide(&link, "ours").unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), "ours");
        assert!(!Path::new(&target).exists());
    }

    #[test]
    fn replace_link_leaves_its_target_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (path(&folder, "hostname"), path(&folder, "victim"));
        fs::write(&target, "safe").unwrap();
        symlink(&target, &link).unwrap();
        replace(&link, "pod\n").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "safe");
    }

    #[test]
    fn read_accounts_fifo_or_folder_is_an_error_and_missing_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = path(&folder, "passwd");
        nix::unistd::mkfifo(&*fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(read_accounts(&fifo).is_err());
        assert!(read_accounts(folder.path().to_str().unwrap()).is_err());
        assert_eq!(read_accounts(&path(&folder, "none")).unwrap(), b"");
    }

    #[test]
    fn hosts_name_the_loopback_and_the_pod() {
        assert!(hosts("pod-1").lines().any(|line| line == "127.0.0.1 pod-1"));
    }
}
