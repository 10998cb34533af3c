//! Image ids: `sha512-` and 128 hexadecimal digits.
//!
//! An ACI's id is the SHA-512 of its uncompressed tar, as appc says. Any other image's is the SHA-512 of this text,
//! each line ended by a newline:
//!
//! ```text
//! fairing image 1
//! the manifest as compact JSON, with what depends on the name left out
//! the digest of the content: for layers each diff id, lowest first; for a tar its own, uncompressed;
//! for a folder that of the EROFS file made of it;
//! for the files of an app the id of the image below, if there is one, the digests of layer and of history
//! ```
//!
//! So one image has one id, whatever it is called and however its layers are compressed.

use anyhow::{Context, Result};
use contract::ImageManifest;

use crate::digest::{Algorithm, Digest};
use crate::source::convert::annotations::OF_NAME;

/// First line of the text that is hashed.
const HEADING: &str = "fairing image 1";

/// How every id begins.
pub const PREFIX: &str = "sha512-";

/// The id of an ACI with this digest.
pub fn of_aci(digest: &Digest) -> String {
    format!("{PREFIX}{}", digest.hex())
}

/// The id of an image that is no ACI.
///
/// # Errors
/// If the manifest cannot be written as JSON.
pub fn of_parts<'a>(
    manifest: &ImageManifest,
    content: impl IntoIterator<Item = &'a Digest>,
) -> Result<String> {
    let mut nameless = manifest.clone();
    nameless.name = String::new();
    nameless.labels.retain(|label| label.name != "version");
    nameless
        .annotations
        .retain(|annotation| !OF_NAME.contains(&annotation.name.as_str()));
    let json = serde_json::to_string(&nameless).context("write an image manifest")?;
    let mut text = format!("{HEADING}\n{json}\n");
    for digest in content {
        text.push_str(&digest.to_string());
        text.push('\n');
    }
    Ok(of_aci(&Digest::of(Algorithm::Sha512, text.as_bytes())))
}

/// Whether `text` is a whole id.
pub fn is_id(text: &str) -> bool {
    text.len() == PREFIX.len() + 128 && is_id_prefix(text)
}

/// Whether an id could begin with `text`: at least its first hexadecimal digit is there.
pub fn is_id_prefix(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix(PREFIX)
        .is_some_and(|hex| (1..=128).contains(&hex.len()) && hex.bytes().all(digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::convert::bare;

    #[test]
    fn id_does_not_depend_on_the_name_but_on_the_content() {
        let digests = ["a", "b"].map(|text| Digest::of(Algorithm::Sha256, text.as_bytes()));
        let id = |name: &str, digest| of_parts(&bare(name, "amd64"), [digest]).unwrap();
        assert!(is_id(&id("x", &digests[0])));
        assert_eq!(id("x", &digests[0]), id("y", &digests[0]));
        assert_ne!(id("x", &digests[0]), id("x", &digests[1]));
    }

    #[test]
    fn text_that_is_no_id_is_told() {
        assert!(is_id_prefix("sha512-0a"));
        for text in ["", "sha512-", "sha512-0A", "sha256-00", "sha512-../x"] {
            assert!(!is_id_prefix(text), "{text}");
        }
    }
}
