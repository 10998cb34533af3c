//! Which images are taken, by containers-policy.json(5) as podman, skopeo and buildah read it.
//!
//! Used by the `fairing` command, on its thread: it says which signatures a place's images need (`Demands::wanted`), the
//! caller fetches them, and they are judged here. Of the policy nothing is passed over that is not understood; images and
//! signatures are strangers'.

mod file;
mod identity;
mod payload;
mod place;
mod requirement;
mod sigstore;
mod strict;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use contract::bounded;
use image::oci::Reference;

use crate::signature::Signer;
use requirement::Requirement;

pub use place::Place;
pub use sigstore::Attachment;

/// Largest policy read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The host's policy.
const SYSTEM: &str = "/etc/containers/policy.json";

/// Requirements by scope.
type Scopes = BTreeMap<String, Vec<Requirement>>;

/// Who may have signed what.
#[derive(Clone, Debug)]
pub struct Policy {
    path: PathBuf,
    default: Vec<Requirement>,
    transports: BTreeMap<String, Scopes>,
}

/// What a policy demands of images of one place.
#[derive(Clone, Debug)]
pub struct Demands<'a> {
    policy: &'a Path,
    scope: String,
    requirements: &'a [Requirement],
}

/// Kinds of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// OpenPGP messages, of "simple signing".
    pub simple: bool,
    /// Sigstore's.
    pub sigstore: bool,
}

/// What speaks for an image.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Its manifest.
    pub manifest: &'a [u8],
    /// What was asked for, where that is a name.
    pub name: Option<&'a Reference>,
    /// OpenPGP messages.
    pub simple: &'a [Vec<u8>],
    /// Sigstore's signatures.
    pub sigstore: &'a [Attachment],
    /// By which nothing has expired.
    pub now: SystemTime,
}

/// Somebody whose signature was required, and is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// The kind of key, and its fingerprint.
    pub key: String,
    /// Who its owner says to be.
    pub users: Vec<String>,
}

impl From<Signer> for Voucher {
    fn from(signer: Signer) -> Self {
        Self {
            key: format!("OpenPGP key {}", signer.fingerprint),
            users: signer.users,
        }
    }
}

impl fmt::Display for Voucher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        match self.users.as_slice() {
            [] => Ok(()),
            users => write!(f, " ({})", users.join(", ")),
        }
    }
}

impl Policy {
    /// Reads `file`, or else the user's policy, or else the host's; `None` if there is none of these.
    ///
    /// # Errors
    /// If it cannot be read, or anything in it is not understood.
    pub fn load(
        file: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>> {
        if let Some(path) = file {
            let policy = Self::read(path)?;
            return policy
                .with_context(|| format!("{} does not exist", path.display()))
                .map(Some);
        }
        // podman, too, goes by the home folder alone.
        let home = variable("HOME").map(PathBuf::from);
        let users = home.filter(|home| home.is_absolute());
        let users = users.map(|home| home.join(".config/containers/policy.json"));
        for path in users.into_iter().chain([SYSTEM.into()]) {
            if let Some(policy) = Self::read(&path)? {
                return Ok(Some(policy));
            }
        }
        Ok(None)
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let read = || -> Result<Option<Self>> {
            let file = match std::fs::File::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            Self::parse(path, &bounded::read(file, MAX_BYTES)?).map(Some)
        };
        read().with_context(|| format!("read the signature policy {}", path.display()))
    }

    /// The policy that `bytes`, of the file `path`, hold.
    ///
    /// # Errors
    /// If anything in it is not understood.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        ensure!(
            bytes.len() as u64 <= MAX_BYTES,
            "it has more than {MAX_BYTES} bytes"
        );
        let (default, transports) = file::parse(bytes)?;
        Ok(Self {
            path: path.to_owned(),
            default,
            transports,
        })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is demanded of images from `place`: the most specific scope alone counts.
    pub fn demands(&self, place: &Place) -> Demands<'_> {
        let found = self.transports.get(place.transport).and_then(|scopes| {
            let mut names = place.scopes.iter().map(String::as_str).chain([""]);
            names.find_map(|name| scopes.get_key_value(name))
        });
        let (scope, requirements) = match found {
            Some((scope, requirements)) => (format!("{}:{scope}", place.transport), requirements),
            None => ("default".to_owned(), &self.default),
        };
        Demands {
            policy: &self.path,
            scope,
            requirements,
        }
    }
}

impl Demands<'_> {
    /// The signatures that are worth fetching.
    pub fn wanted(&self) -> Kinds {
        let any = |kind: fn(&Requirement) -> bool| self.requirements.iter().any(kind);
        Kinds {
            simple: any(|one| matches!(one, Requirement::SignedBy(_))),
            sigstore: any(|one| matches!(one, Requirement::SigstoreSigned(_))),
        }
    }

    /// Who vouches for an image, by all requirements together: nobody, where nothing is required.
    ///
    /// # Errors
    /// If it does not meet one of them.
    pub fn judge(&self, evidence: &Evidence<'_>) -> Result<Vec<Voucher>> {
        let mut vouchers = Vec::new();
        for requirement in self.requirements {
            let voucher = requirement.check(evidence).with_context(|| {
                format!(
                    "not allowed by the signature policy {} ({})",
                    self.policy.display(),
                    self.scope
                )
            })?;
            vouchers.extend(voucher.filter(|voucher| !vouchers.contains(voucher)));
        }
        Ok(vouchers)
    }
}
