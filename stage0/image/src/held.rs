//! Files and folders whose locks keep others away: by the time that one is locked, its name may stand for another.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether `held`, a file or folder, is what `path` names now.
pub fn is_at(held: &File, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (held.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (held.dev(), held.ino()) == (named.dev(), named.ino())
}
