//! A stage 1 that is an `.aci` file of the host.
//!
//! A stage 1 is trusted, its programs run on the host; still its files stay in their directory.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;

use super::kept::{Held, once};

/// First bytes of a gzip file (RFC 1952 section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The folder with the unpacked content of the file.
///
/// # Errors
/// If the file is damaged, is neither a tar nor a gzipped tar, or cannot be unpacked.
pub fn unpack(file: &Path, data: &Path) -> Result<Held> {
    let metadata = fs::metadata(file).with_context(|| format!("open {}", file.display()))?;
    let version = format!(
        "{:x}-{:x}-{:x}-{:x}.{:09}",
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec()
    );
    once(data, &version, |target| {
        unpack_to(file, target).with_context(|| format!("unpack stage 1 {}", file.display()))
    })
}

fn unpack_to(file: &Path, target: &Path) -> Result<()> {
    let mut reader = BufReader::new(File::open(file)?);
    let mut magic = [0; 2];
    reader.read_exact(&mut magic).context("it is too short")?;
    reader.rewind()?;
    if magic == GZIP {
        unpack_tar(MultiGzDecoder::new(reader), target)?;
    } else {
        unpack_tar(reader, target)?;
    }
    if !target.join("manifest").is_file() {
        bail!("it has no manifest, so it is no ACI");
    }
    Ok(())
}

fn unpack_tar(reader: impl Read, target: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(false);
    for entry in archive.entries()? {
        let mut entry = entry
            .context("it is no tar, gzipped or not; other compressions must be undone first")?;
        if !entry.unpack_in(target)? {
            bail!(
                "it names a file outside of itself: {}",
                entry.path()?.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn tarball() -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for name in ["manifest", "rootfs/run"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            header.set_mode(0o755);
            tar.append_data(&mut header, name, &b"x"[..])?;
        }
        Ok(tar.into_inner()?)
    }

    #[test]
    fn file_raw_or_gzipped_is_unpacked_once() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("s.aci");
        fs::write(&file, tarball()?)?;
        let held = unpack(&file, dir.path())?;
        let target = held.path();
        assert_eq!(
            fs::metadata(target.join("rootfs/run"))?.mode() & 0o777,
            0o755
        );
        fs::write(target.join("mark"), "")?;
        assert!(unpack(&file, dir.path())?.path().join("mark").exists());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tarball()?)?;
        fs::write(&file, gzip.finish()?)?;
        assert!(!unpack(&file, dir.path())?.path().join("mark").exists());
        Ok(())
    }

    #[test]
    fn file_damaged_is_refused_and_nothing_is_left() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("s.aci");
        let whole = tarball()?;
        for content in [&b""[..], b"no tar at all", &whole[..700]] {
            fs::write(&file, content)?;
            assert!(unpack(&file, dir.path()).is_err());
        }
        fs::write(&file, whole)?;
        unpack(&file, dir.path())?;
        assert!(!dir.path().join("stage1/tmp").exists());
        Ok(())
    }
}
