//! Folders of trusted keys, as rkt has them:
//!
//! ```text
//! trustedkeys/root.d/FINGERPRINT            trusted for every image
//! trustedkeys/prefix.d/NAME/FINGERPRINT     trusted for the image NAME and all below it
//! ```
//!
//! in the system's, the host's and the user's configuration. An empty file takes the key of that name back, where it
//! was trusted by a folder before it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use contract::bounded;
use contract::name::is_ac_identifier;

use crate::certificate::{Certificate, MAX_KEY_BYTES};

/// Files looked at in one folder.
const MAX_FILES: usize = 1024;

/// The trusted keys of this host.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Folders of configuration, the system's first.
    folders: Vec<PathBuf>,
}

/// What a key is trusted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every image.
    Root,
    /// Images of this name, and those whose names continue it after a slash.
    Prefix(String),
}

/// A key that has been added.
#[derive(Clone, Debug)]
pub struct Added {
    /// Its file.
    pub path: PathBuf,
    /// Whether it had been there.
    pub known: bool,
}

impl Scope {
    /// The folder below a folder of configuration.
    fn folder(&self, configuration: &Path) -> Result<PathBuf> {
        let trusted = configuration.join("trustedkeys");
        match self {
            Self::Root => Ok(trusted.join("root.d")),
            Self::Prefix(name) => {
                check_name(name)?;
                Ok(trusted.join("prefix.d").join(name))
            }
        }
    }
}

impl Keys {
    /// The keys in these folders of configuration; what a later one says counts before an earlier one.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    /// The keys that may sign the image `name`.
    ///
    /// # Errors
    /// If one cannot be read, or is not the one that its file's name says.
    pub fn for_image(&self, name: &str) -> Result<Vec<Certificate>> {
        check_name(name)?;
        let ends = name.match_indices('/').map(|(at, _)| at);
        let prefixes = ends.chain([name.len()]).map(|end| &name[..end]);
        let scopes: Vec<_> = prefixes
            .map(|prefix| Scope::Prefix(prefix.to_owned()))
            .collect();
        let mut trusted = BTreeMap::new();
        for folder in &self.folders {
            load(&Scope::Root.folder(folder)?, &mut trusted)?;
        }
        for folder in &self.folders {
            for scope in &scopes {
                load(&scope.folder(folder)?, &mut trusted)?;
            }
        }
        Ok(trusted.into_values().collect())
    }

    /// Trusts `certificate` from now on, in the folder of configuration `into`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(into: &Path, scope: &Scope, certificate: &Certificate) -> Result<Added> {
        let folder = scope.folder(into)?;
        let path = folder.join(certificate.fingerprint());
        let bytes = certificate.armored()?;
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(Added { path, known: true });
        }
        let write = || -> Result<()> {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&folder)?;
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            file.write_all(&bytes)?;
            file.as_file()
                .set_permissions(Permissions::from_mode(0o644))?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("write key {}", path.display()))?;
        Ok(Added { path, known: false })
    }
}

fn check_name(name: &str) -> Result<()> {
    if !is_ac_identifier(name) {
        bail!("{name:?} is no name of an App Container image: a-z, 0-9, and -._~/ between them");
    }
    Ok(())
}

/// Takes the keys of one folder, and takes back those whose files are empty.
fn load(folder: &Path, trusted: &mut BTreeMap<String, Certificate>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
    };
    for (count, entry) in entries.enumerate() {
        ensure!(
            count < MAX_FILES,
            "{} has more than {MAX_FILES} files",
            folder.display()
        );
        let entry = entry.with_context(|| format!("read {}", folder.display()))?;
        let path = entry.path();
        let Some(name) = entry
            .file_name()
            .to_str()
            .filter(|name| is_fingerprint(name))
            .map(str::to_owned)
        else {
            // Folders of longer prefixes, and what an editor or a killed `trust` has left.
            continue;
        };
        let bytes = read(&path).with_context(|| format!("read trusted key {}", path.display()))?;
        match bytes {
            Some(bytes) if bytes.is_empty() => drop(trusted.remove(&name)),
            Some(bytes) => {
                let certificate = parse(&bytes, &name)
                    .with_context(|| format!("read trusted key {}", path.display()))?;
                trusted.insert(name, certificate);
            }
            None => {}
        }
    }
    Ok(())
}

/// The content of a regular file; `None` for a folder, whose name may look like a fingerprint.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Ok(None);
    }
    ensure!(file.metadata()?.is_file(), "it is not a file");
    bounded::read(file, MAX_KEY_BYTES).map(Some)
}

fn parse(bytes: &[u8], name: &str) -> Result<Certificate> {
    let mut certificates = Certificate::read_all(bytes)?.into_iter();
    let first = certificates.next().context("no key in it")?;
    ensure!(
        first.fingerprint() == name,
        "it holds the key {}, not the one that it is named for",
        first.fingerprint()
    );
    Ok(first)
}

/// Those of version 4 have 20 bytes, those of version 6 have 32.
fn is_fingerprint(name: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    matches!(name.len(), 40 | 64) && name.bytes().all(digit)
}
