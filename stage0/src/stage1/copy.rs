//! Puts files into a pod directory: as hard links where they are shared, else as copies that share blocks if they can.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Nesting of directories beyond which a tree is taken for damaged.
const DEPTH_LIMIT: u32 = 64;

/// Copies the directory `from` to `to`, which must not exist; with `share` its files become hard links where possible. Names of
/// one file stay names of one file. What is called as one of `without` at the top is left out.
///
/// # Errors
/// If something cannot be read or made, or is neither file, directory nor symbolic link.
pub fn copy_tree(from: &Path, to: &Path, share: bool, without: &[&str]) -> Result<()> {
    let mut copy = Copy {
        share,
        without,
        copied: HashMap::new(),
    };
    copy.level(from, to, 0)
}

struct Copy<'a> {
    share: bool,
    without: &'a [&'a str],
    /// Copies of files that have several names, by their device and inode.
    copied: HashMap<(u64, u64), PathBuf>,
}

impl Copy<'_> {
    fn level(&mut self, from: &Path, to: &Path, depth: u32) -> Result<()> {
        if depth > DEPTH_LIMIT {
            bail!("{} is nested too deeply", from.display());
        }
        let context = || format!("copy {} to {}", from.display(), to.display());
        fs::create_dir(to).with_context(context)?;
        for entry in fs::read_dir(from).with_context(context)? {
            let entry = entry.with_context(context)?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            if depth == 0 && self.without.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let kind = entry.file_type().with_context(context)?;
            if kind.is_dir() {
                self.level(&source, &target, depth + 1)?;
            } else if kind.is_symlink() {
                fs::read_link(&source)
                    .and_then(|link| symlink(link, &target))
                    .with_context(|| format!("copy link {}", source.display()))?;
            } else if kind.is_file() {
                self.file(&source, &target).with_context(|| {
                    format!("copy {} to {}", source.display(), target.display())
                })?;
            } else {
                bail!("{} is no file, directory or link", source.display());
            }
        }
        // Last, so that a directory without write permission can be filled.
        let mode = fs::metadata(from)
            .with_context(context)?
            .permissions()
            .mode();
        fs::set_permissions(to, Permissions::from_mode(mode & 0o7777)).with_context(context)
    }

    fn file(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        // A link is impossible to another file system, or to another user's file.
        if self.share && fs::hard_link(from, to).is_ok() {
            return Ok(());
        }
        let metadata = fs::metadata(from)?;
        let identity = (metadata.dev(), metadata.ino());
        if let Some(copied) = self.copied.get(&identity) {
            return fs::hard_link(copied, to);
        }
        if metadata.nlink() > 1 {
            self.copied.insert(identity, to.to_owned());
        }
        // By copy_file_range(2), which shares the blocks where the file system can.
        fs::copy(from, to).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Result<tempfile::TempDir> {
        let dir = tempfile::tempdir()?;
        fs::create_dir_all(dir.path().join("from/a"))?;
        fs::write(dir.path().join("from/a/file"), "text")?;
        fs::set_permissions(
            dir.path().join("from/a/file"),
            Permissions::from_mode(0o751),
        )?;
        symlink("a/file", dir.path().join("from/link"))?;
        Ok(dir)
    }

    #[test]
    fn tree_copied_has_files_of_its_own() -> Result<()> {
        let dir = tree()?;
        copy_tree(&dir.path().join("from"), &dir.path().join("to"), false, &[])?;
        let copied = fs::metadata(dir.path().join("to/a/file"))?;
        assert_eq!((copied.nlink(), copied.mode() & 0o7777), (1, 0o751));
        assert_eq!(fs::read_to_string(dir.path().join("to/link"))?, "text");
        Ok(())
    }

    #[test]
    fn file_of_several_names_is_copied_once() -> Result<()> {
        let dir = tree()?;
        let file = dir.path().join("from/a/file");
        fs::hard_link(&file, dir.path().join("from/other"))?;
        copy_tree(&dir.path().join("from"), &dir.path().join("to"), false, &[])?;
        let names = ["to/a/file", "to/other"].map(|name| fs::metadata(dir.path().join(name)));
        let [one, other] = names.map(|name| name.map(|found| (found.ino(), found.nlink())));
        assert_eq!(one?, other?);
        assert_eq!(fs::metadata(file)?.nlink(), 2);
        Ok(())
    }

    #[test]
    fn tree_shared_has_the_same_files() -> Result<()> {
        let dir = tree()?;
        copy_tree(&dir.path().join("from"), &dir.path().join("to"), true, &[])?;
        assert_eq!(fs::metadata(dir.path().join("to/a/file"))?.nlink(), 2);
        Ok(())
    }
}
