//! Where signatures of a repository's images are: containers-registries.d(5).
//!
//! Read when a policy demands signatures. Scopes are those of policies; of each setting the most specific one counts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use contract::bounded;
use image::oci::Reference;
use serde::Deserialize;

use super::file::drop_ins;

/// Largest file read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The host's folder.
const SYSTEM: &str = "/etc/containers/registries.d";

/// All files of a folder together.
#[derive(Debug, Default)]
pub struct Lookaside {
    default: Option<Section>,
    docker: BTreeMap<String, Section>,
    /// Where signatures are of which no file says it.
    usual: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    default_docker: Option<Section>,
    docker: BTreeMap<String, Section>,
}

/// What holds for a scope; what only signers need does not matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Section {
    #[serde(alias = "sigstore")]
    lookaside: String,
    use_sigstore_attachments: Option<bool>,
}

impl Lookaside {
    /// Reads the user's folder if there is one, or else the host's.
    ///
    /// # Errors
    /// If a file cannot be read, is malformed, or says what another has said.
    pub fn load(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let home = variable("HOME")
            .map(PathBuf::from)
            .filter(|home| home.is_absolute());
        let user = home
            .as_ref()
            .map(|home| home.join(".config/containers/registries.d"));
        let folder = user.filter(|folder| folder.exists());
        let mut found = Self::read(&folder.unwrap_or_else(|| SYSTEM.into()))?;
        let usual = match nix::unistd::geteuid().is_root() {
            true => Some(PathBuf::from("/var/lib/containers/sigstore")),
            false => home.map(|home| home.join(".local/share/containers/sigstore")),
        };
        found.usual = usual.map(|folder| format!("file://{}", folder.display()));
        Ok(found)
    }

    fn read(folder: &Path) -> Result<Self> {
        let mut found = Self::default();
        for path in drop_ins(folder, "yaml")? {
            let added = read(&path).and_then(|file| found.add(file));
            added.with_context(|| format!("read configuration {}", path.display()))?;
        }
        Ok(found)
    }

    fn add(&mut self, file: File) -> Result<()> {
        if let Some(section) = file.default_docker
            && self.default.replace(section).is_some()
        {
            bail!("another file has default-docker, too");
        }
        for (scope, section) in file.docker {
            if self.docker.contains_key(&scope) {
                bail!("another file has docker {scope:?}, too");
            }
            self.docker.insert(scope, section);
        }
        Ok(())
    }

    /// The URL below which OpenPGP signatures of the repository's images lie.
    pub fn base(&self, reference: &Reference) -> Option<String> {
        let said = self.first(reference, |section| {
            Some(&section.lookaside).filter(|url| !url.is_empty())
        });
        let base = said.or(self.usual.as_ref())?;
        Some(format!(
            "{}/{}",
            base.trim_end_matches('/'),
            reference.repository()
        ))
    }

    /// Whether the registry has signatures of sigstore's beside images.
    pub fn attachments(&self, reference: &Reference) -> bool {
        self.first(reference, |section| {
            section.use_sigstore_attachments.as_ref()
        })
        .is_some_and(|attachments| *attachments)
    }

    fn first<T>(
        &self,
        reference: &Reference,
        setting: impl Fn(&Section) -> Option<&T>,
    ) -> Option<&T> {
        let scopes = reference.scopes();
        let scoped = scopes.iter().filter_map(|scope| self.docker.get(scope));
        scoped.chain(&self.default).find_map(setting)
    }
}

fn read(path: &Path) -> Result<File> {
    let text = String::from_utf8(bounded::read(fs::File::open(path)?, MAX_BYTES)?)?;
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    Ok(serde_saphyr::from_str(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> Result<Lookaside> {
        let folder = tempfile::tempdir().unwrap();
        for (number, text) in files.iter().enumerate() {
            fs::write(folder.path().join(format!("{number}.yaml")), text).unwrap();
        }
        fs::write(folder.path().join("x.conf"), "[").unwrap();
        Lookaside::read(folder.path())
    }

    #[test]
    fn most_specific_scope_decides_each_setting() {
        let found = folder(&[
            "default-docker:\n  lookaside: file:///all/\n  use-sigstore-attachments: true\n",
            "docker:\n  h.org/a:\n    sigstore: https://a.h.org\n  h.org:\n    use-sigstore-attachments: false\n",
            "",
        ])
        .unwrap();
        for (name, base, attachments) in [
            ("h.org/a/b:1", "https://a.h.org/a/b", false),
            ("h.org/ab", "file:///all/ab", false),
            ("x.org/y", "file:///all/y", true),
        ] {
            let name = name.parse().unwrap();
            assert_eq!(found.base(&name).as_deref(), Some(base));
            assert_eq!(found.attachments(&name), attachments);
        }
        let none = folder(&[]).unwrap();
        assert_eq!(none.base(&"x".parse().unwrap()), None);
        assert!(!none.attachments(&"x".parse().unwrap()));
    }

    #[test]
    fn files_that_contradict_or_are_malformed_are_refused() {
        for files in [
            &["docker: {x: {}}", "docker: {x: {}}"][..],
            &["default-docker: {}", "default-docker: {}"],
            &["docker: ["],
            &["docker: {x: {use-sigstore-attachments: perhaps}}"],
        ] {
            assert!(folder(files).is_err(), "{files:?}");
        }
    }
}
