//! Signatures of App Container images, and the keys that they are checked with.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use contract::bounded;
use discovery::{Client, Name};
use trust::policy::Voucher;
use trust::{Added, Certificate, Keys, MAX_KEY_BYTES, MAX_SIGNATURE_BYTES, Scope};

use super::{Fetching, Wanted, own_folder};
use crate::settings::Settings;

impl Fetching<'_> {
    /// Whether what comes over the network must be signed.
    pub(super) fn must_verify(&self) -> bool {
        !self.settings.fetches_insecurely("image")
    }

    /// The signature for `wanted`; `None`, and said so, where none is needed.
    pub(super) fn signature_of(&self, client: &Client, wanted: &Wanted) -> Result<Option<Vec<u8>>> {
        if !self.must_verify() {
            crate::note(&format!(
                "warning: {} is not verified, as --insecure-options asks for",
                wanted.url
            ));
            return Ok(None);
        }
        let bytes = match self.signature {
            Some(path) => read_signature(path)?,
            None => client
                .document(&wanted.signature, MAX_SIGNATURE_BYTES)
                .with_context(|| {
                    format!(
                        "{} has no signature to verify it with; --signature names one, --insecure-options=image does without",
                        wanted.url
                    )
                })?,
        };
        Ok(Some(bytes))
    }

    /// Who has signed the image `name` at `path`; refuses it unless it is somebody whose key is trusted for it.
    pub(super) fn verify(&self, name: &str, path: &Path, signature: &[u8]) -> Result<Voucher> {
        let keys = Keys::new(folders(self.settings)).for_image(name)?;
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let signer = trust::verify(&keys, signature, &mut file, SystemTime::now())
            .with_context(|| {
                format!(
                    "verify the signature of {name} ({} keys are trusted for it; `fairing trust --prefix={name}` adds one)",
                    keys.len()
                )
            })?;
        if !self.quiet {
            crate::note(&format!(
                "{name} is signed by {} ({})",
                signer.fingerprint,
                signer.users.join(", ")
            ));
        }
        Ok(signer.into())
    }
}

/// The folders of configuration that keys are looked for in, the system's first.
fn folders(settings: &Settings) -> Vec<PathBuf> {
    let folders = [&settings.system_config, &settings.local_config];
    folders
        .into_iter()
        .chain(&settings.user_config)
        .cloned()
        .collect()
}

/// Trusts the keys that the discovery page of `name` offers over HTTPS, as `--trust-keys-from-https` asks for.
///
/// # Errors
/// If a key cannot be kept; not if there is none, as one may be trusted already.
pub(super) fn trust_found(client: &Client, settings: &Settings, name: &Name) -> Result<()> {
    if client.access().any_certificate {
        crate::note(
            "warning: keys are not fetched from servers whose certificates are not checked",
        );
        return Ok(());
    }
    let found = match discover_keys(client, name) {
        Ok(found) => found,
        Err(error) => {
            crate::warn(&error.context("no keys are fetched"));
            return Ok(());
        }
    };
    let into = own_folder(settings)?;
    let scope = Scope::Prefix(name.name.clone());
    for (url, certificates) in found.iter().filter(|(url, _)| url.starts_with("https://")) {
        for certificate in certificates {
            let Added { path, known } = Keys::add(&into, &scope, certificate)?;
            if !known {
                crate::note(&format!(
                    "trusting {url} for {} without review, kept as {}",
                    name.name,
                    path.display()
                ));
            }
        }
    }
    Ok(())
}

/// The keys that the discovery page of `name` offers, with the URLs where they are.
///
/// # Errors
/// If there are none, or one cannot be read.
pub fn discover_keys(client: &Client, name: &Name) -> Result<Vec<(String, Vec<Certificate>)>> {
    let urls = discovery::keys(client, name)?;
    urls.into_iter()
        .map(|url| Ok((url.clone(), read_key(client, &url)?)))
        .collect()
}

/// The keys at a path or URL.
///
/// # Errors
/// If there are none, or they cannot be read.
pub fn read_key(client: &Client, from: &str) -> Result<Vec<Certificate>> {
    let bytes = if from.contains("://") {
        client.document(from, MAX_KEY_BYTES)?
    } else {
        read_file(Path::new(from), MAX_KEY_BYTES)?
    };
    Certificate::read_all(&bytes).with_context(|| format!("read key {from}"))
}

/// A signature in a file.
///
/// # Errors
/// If it is too large, or cannot be read.
pub(super) fn read_signature(path: &Path) -> Result<Vec<u8>> {
    read_file(path, MAX_SIGNATURE_BYTES)
}

fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    bounded::read(file, limit).with_context(|| format!("read {}", path.display()))
}
