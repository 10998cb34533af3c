//! The indexes of containers/storage: which images there are, of which layers, and the documents of one image.
//!
//! What other programs wrote, bounded in size and checked before it becomes a path.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::place::Storage;
use crate::blob::Blob;
use crate::source::document::{self, MAX_JSON_BYTES};
use crate::source::names::{PREFIXES, split_reference};

/// Bytes of an index; an image takes a few thousand.
const MAX_INDEX_BYTES: u64 = 16 << 20;

/// Fewest digits of an id that stand for an image; podman shows so many.
const MIN_ID_DIGITS: usize = 12;

/// An image of the index.
#[derive(Debug, Deserialize)]
pub struct Entry {
    /// Of its configuration, in hexadecimal digits.
    pub id: String,
    /// Whole ones, with registry and tag.
    #[serde(default)]
    pub names: Vec<String>,
    /// The uppermost; empty if there is none.
    #[serde(default)]
    pub layer: String,
}

/// A layer of the index.
#[derive(Debug, Deserialize)]
pub struct LayerEntry {
    id: String,
    /// The one below; empty at the bottom.
    #[serde(default)]
    pub parent: String,
    /// Bytes of its tar.
    #[serde(default, rename = "diff-size")]
    pub diff_size: u64,
}

/// The image that `reference` means in `storage`: a name, with a tag or `latest`, or the beginning of an id.
///
/// # Errors
/// If several begin so, or the index cannot be read.
pub fn find(storage: &Storage, reference: &str) -> Result<Option<Entry>> {
    let _lock = storage.lock("images")?;
    let entries: Vec<Entry> = read(&storage.index("images")?, MAX_INDEX_BYTES)?;
    choose(entries, reference)
}

fn choose(mut entries: Vec<Entry>, reference: &str) -> Result<Option<Entry>> {
    entries.retain(|entry| is_safe(&entry.id));
    let tagged = reference.contains('@') || split_reference(reference).1.is_some();
    let suffix = if tagged { "" } else { ":latest" };
    for prefix in PREFIXES {
        let name = format!("{prefix}{reference}{suffix}");
        let called = |entry: &Entry| entry.names.contains(&name);
        if let Some(at) = entries.iter().position(called) {
            // What else podman calls it stands for what was fetched here.
            let names = vec![name];
            let entry = entries.swap_remove(at);
            return Ok(Some(Entry { names, ..entry }));
        }
    }
    let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
    if digits.len() < MIN_ID_DIGITS {
        return Ok(None);
    }
    entries.retain(|entry| entry.id.starts_with(digits));
    if entries.len() > 1 {
        bail!("{reference} is the beginning of the ids of several images");
    }
    Ok(entries.pop())
}

/// The layers of `storage` by id.
///
/// # Errors
/// If the index cannot be read.
pub fn layers(storage: &Storage) -> Result<HashMap<String, LayerEntry>> {
    let _lock = storage.lock("layers")?;
    let layers: Vec<LayerEntry> = read(&storage.index("layers")?, MAX_INDEX_BYTES)?;
    let safe = layers.into_iter().filter(|layer| is_safe(&layer.id));
    Ok(safe.map(|layer| (layer.id.clone(), layer)).collect())
}

/// A document that came with an image, whose folder is `folder`.
///
/// # Errors
/// If there is none so called, or it is too large.
pub fn document(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let file = match plain {
        true => name.to_owned(),
        false => format!("={}", STANDARD.encode(name)),
    };
    Blob::open(&folder.join(file))?.read_all(MAX_JSON_BYTES)
}

fn read<T: serde::de::DeserializeOwned>(blob: &Blob, limit_bytes: u64) -> Result<T> {
    document::parse(&blob.read_all(limit_bytes)?, blob.object())
}

/// Whether an id is one file name that does not climb.
fn is_safe(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, names: &[&str]) -> Entry {
        Entry {
            id: id.to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            layer: String::new(),
        }
    }

    fn chosen(reference: &str) -> Option<String> {
        let entries = vec![
            entry(
                "aaaaaaaaaaaaaaaa",
                &["localhost/tool:latest", "localhost/tool:1"],
            ),
            entry("bbbbbbbbbbbbbbbb", &["docker.io/library/tool:latest"]),
            entry("../climbs-out-of", &["localhost/evil:latest"]),
        ];
        choose(entries, reference).unwrap().map(|entry| entry.id)
    }

    #[test]
    fn name_is_found_with_its_tag_and_where_builders_put_it() {
        for reference in [
            "tool",
            "tool:1",
            "localhost/tool",
            "aaaaaaaaaaaa",
            "sha256:aaaaaaaaaaaaaaaa",
        ] {
            assert_eq!(
                chosen(reference).as_deref(),
                Some("aaaaaaaaaaaaaaaa"),
                "{reference}"
            );
        }
        assert_eq!(
            chosen("docker.io/library/tool").as_deref(),
            Some("bbbbbbbbbbbbbbbb")
        );
        for reference in ["", "tool:2", "aaaa", "evil", "../climbs-out-of"] {
            assert_eq!(chosen(reference), None, "{reference}");
        }
    }
}
