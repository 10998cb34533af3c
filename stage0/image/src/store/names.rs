//! Names of images: one small file each, holding the id it stands for.
//!
//! A name may hold `/` and come from a stranger's archive; as a file name it is escaped so that it cannot climb or
//! hide. Written by temporary file, fsync and rename.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::identity::is_id;
use super::place::Place;
use super::workshop::{replace, sync_folder};
use crate::source::names::PREFIXES;

/// Longest escaped name; a Linux file name has at most 255 bytes.
const MAX_FILE_NAME: usize = 255;

/// The file name for `name`; `None` if it can be no image's name.
fn encode(name: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:@+~/".contains(&byte);
    let first = name.bytes().next()?;
    // What looks like an id or a digest is looked up as such: a name of that look would stand for another image.
    let is_digest = ["sha512-", "sha256:", "sha512:"]
        .iter()
        .any(|start| name.starts_with(start));
    if !name.bytes().all(plain) || !first.is_ascii_alphanumeric() || is_digest {
        return None;
    }
    let encoded = name.replace('/', "%2F");
    (encoded.len() <= MAX_FILE_NAME).then_some(encoded)
}

fn decode(file_name: &str) -> Option<String> {
    let name = file_name.replace("%2F", "/");
    (encode(&name)? == file_name).then_some(name)
}

/// Refuses a name that the store cannot keep.
///
/// # Errors
/// If it has other characters than references have, begins like an id, or is too long.
pub fn check(name: &str) -> Result<()> {
    if encode(name).is_none() {
        bail!(
            "{name:?} is no name for an image: letters, digits and ._-:@+~/ are, a letter or digit first"
        );
    }
    Ok(())
}

/// Whether the store can keep `name`.
pub fn is_name(name: &str) -> bool {
    encode(name).is_some()
}

/// Makes `name` stand for `id` from now on.
///
/// # Errors
/// If the name is none, or cannot be written.
pub fn bind(place: &Place, name: &str, id: &str) -> Result<()> {
    check(name)?;
    if read(place, name)?.as_deref() == Some(id) {
        return Ok(());
    }
    let target = place.names().join(encode(name).unwrap_or_default());
    write_id(place, &target, id).with_context(|| format!("write name {name}"))
}

/// Makes the file at `target` hold `id`, whole and durable or not at all.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write_id(place: &Place, target: &Path, id: &str) -> Result<()> {
    replace(&place.tmp(), target, format!("{id}\n").as_bytes())
}

/// The id that a reference's name stands for: as it is, with `:latest`, and where builders put bare names.
///
/// # Errors
/// If a name cannot be read.
pub fn resolve(place: &Place, reference: &str) -> Result<Option<String>> {
    Ok(kept_as(place, reference)?.map(|(_, id)| id))
}

/// The name that a reference means, spelled as it is kept, and the id that it stands for.
///
/// # Errors
/// If a name cannot be read.
pub fn kept_as(place: &Place, reference: &str) -> Result<Option<(String, String)>> {
    for prefix in PREFIXES {
        for suffix in ["", ":latest"] {
            let name = format!("{prefix}{reference}{suffix}");
            if let Some(id) = read(place, &name)? {
                return Ok(Some((name, id)));
            }
        }
    }
    Ok(None)
}

/// Forgets `name`; one that is not there is forgotten already.
///
/// # Errors
/// If it cannot be removed.
pub fn unbind(place: &Place, name: &str) -> Result<()> {
    let path = place.names().join(encode(name).unwrap_or_default());
    remove(&path)?;
    sync_folder(&place.names())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The id that exactly `name` stands for.
fn read(place: &Place, name: &str) -> Result<Option<String>> {
    encode(name).map_or(Ok(None), |file| read_id(&place.names().join(file)))
}

/// The id that the file at `path` holds; `None` if there is no file or no id in it.
///
/// # Errors
/// If it cannot be read.
pub(super) fn read_id(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned()).filter(|id| is_id(id))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// All names with their ids, sorted by name.
///
/// # Errors
/// If they cannot be read.
pub fn all(place: &Place) -> Result<Vec<(String, String)>> {
    let dir = place.names();
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry.with_context(|| format!("read {}", dir.display()))?;
        let file_name = entry.file_name();
        let Some(name) = file_name.to_str().and_then(decode) else {
            continue;
        };
        if let Some(id) = read_id(&entry.path())? {
            names.push((name, id));
        }
    }
    names.sort();
    Ok(names)
}

/// Removes all files of `folder` that hold `id`.
///
/// # Errors
/// If one cannot be read or removed.
pub(super) fn forget(folder: &Path, id: &str) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry
            .with_context(|| format!("read {}", folder.display()))?
            .path();
        if read_id(&path)?.as_deref() != Some(id) {
            continue;
        }
        remove(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn name_that_climbs_or_hides_is_refused() {
        for name in [
            "",
            ".",
            "..",
            "../x",
            "/etc",
            ".x",
            "a\0",
            "a b",
            "a%2Fb",
            "sha512-ab",
            "é",
        ] {
            assert!(!is_name(name), "{name:?}");
        }
        assert!(!is_name(&"a/".repeat(70)));
    }

    proptest! {
        #[test]
        fn name_of_any_text_is_one_component_and_comes_back(name in "\\PC{0,40}|[a-z./:@%-]{1,40}") {
            if let Some(encoded) = encode(&name) {
                prop_assert!(!encoded.contains('/') && !encoded.starts_with('.'));
                prop_assert_eq!(decode(&encoded), Some(name));
            }
        }
    }
}
