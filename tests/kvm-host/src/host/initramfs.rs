//! The emulated host's initramfs: a "newc" cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst),
//! uncompressed: unpacking would be emulated.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::modules;
use crate::boot::{self, BootOrder};

const TYPE_FOLDER: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TRAILER: &str = "TRAILER!!!";

/// An archive being written.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is over 4 GiB"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        self.entries += 1;
        let links = 1;
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.add(TRAILER, 0, &[])?;
        Ok(self.bytes)
    }
}

/// Makes the archive: this program as the first process, the modules it loads, and its boot order.
pub fn build(kernel: &Path, folders: &[PathBuf]) -> Result<Vec<u8>> {
    let release = modules::release_folder(kernel)?;
    let mut archive = Archive::default();
    for folder in ["dev", "modules"] {
        archive.add(folder, TYPE_FOLDER | 0o755, &[])?;
    }
    let program = fs::read("/proc/self/exe").context("read this program")?;
    archive.add("init", TYPE_FILE | 0o755, &program)?;
    let mut load = Vec::new();
    for (number, path) in modules::load_order(&release)?.into_iter().enumerate() {
        let name = format!("modules/{number}");
        let content = fs::read(&path).with_context(|| format!("read module {}", path.display()))?;
        archive.add(&name, TYPE_FILE | 0o644, &content)?;
        load.push(Path::new("/").join(name));
    }
    let host_name = nix::unistd::gethostname().context("ask for the host name")?;
    let order = BootOrder {
        host_name,
        modules: release,
        load,
        folders: folders.to_vec(),
    };
    archive.add(
        boot::PATH.trim_start_matches('/'),
        TYPE_FILE | 0o644,
        &order.encode()?,
    )?;
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_with_a_file_has_header_name_and_content_aligned() {
        let mut archive = Archive::default();
        archive.add("init", TYPE_FILE | 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(&bytes[..22], b"07070100000001000081ed");
        assert_eq!(&bytes[110..115], b"init\0");
        // Header and name take 115 bytes, so the content begins at 116.
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(bytes.len() % 4, 0);
        assert!(
            bytes
                .windows(TRAILER.len())
                .any(|window| window == TRAILER.as_bytes())
        );
    }
}
