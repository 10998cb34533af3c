//! One `[[registry]]` of registries.conf: which names it is for, and where those really are.

use anyhow::{Result, bail, ensure};
use serde::Deserialize;

use crate::endpoint::Endpoint;
use image::oci::Reference;

/// A table `[[registry]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Registry {
    /// Names that it is for; `*.` before a domain stands for its subdomains.
    pub prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

/// A table `[[registry.mirror]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: Pulls,
}

/// What a mirror is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Pulls {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

impl Registry {
    /// This with its prefix, or what is wrong with it.
    ///
    /// # Errors
    /// If it says nothing of where it is.
    pub fn checked(mut self) -> Result<Self> {
        let wild = self.prefix.starts_with("*.");
        ensure!(
            wild || !self.location.is_empty() || (self.blocked && !self.prefix.is_empty()),
            "a [[registry]] has no location"
        );
        ensure!(
            self.mirror.iter().all(|mirror| !mirror.location.is_empty()),
            "a mirror of [[registry]] {:?} has no location",
            self.prefix
        );
        if self.prefix.is_empty() {
            self.prefix.clone_from(&self.location);
        }
        Ok(self)
    }

    /// How much of `name` the prefix stands for, in bytes.
    pub fn matched(&self, name: &str) -> Option<usize> {
        let end = match self.prefix.strip_prefix('*') {
            Some(domain) => {
                let at = name.find(domain)?;
                (at > 0 && !name[..at].contains('/')).then_some(at + domain.len())?
            }
            None => name
                .strip_prefix(self.prefix.as_str())
                .map(|_| self.prefix.len())?,
        };
        let rest = &name[end..];
        (rest.is_empty() || rest.starts_with('/')).then_some(end)
    }

    /// Mirrors and then the registry itself, with the first `matched` bytes of the name replaced.
    ///
    /// # Errors
    /// If it is blocked, or a location makes no name.
    pub fn endpoints(&self, reference: &Reference, matched: usize) -> Result<Vec<Endpoint>> {
        if self.blocked {
            bail!("registry {} is blocked there", self.prefix);
        }
        let name = reference.name();
        let rest = &name[matched..];
        let place = |location: &str, insecure| {
            let reference = match location {
                "" => reference.clone(),
                location => reference.renamed(&format!("{location}{rest}"))?,
            };
            Ok(Endpoint {
                reference,
                insecure,
            })
        };
        let by_digest = reference.digest().is_some();
        self.mirror
            .iter()
            .filter(|mirror| match mirror.pull_from_mirror {
                Pulls::All => by_digest || !self.mirror_by_digest_only,
                Pulls::DigestOnly => by_digest,
                Pulls::TagOnly => !by_digest,
            })
            .map(|mirror| place(&mirror.location, mirror.insecure))
            .chain(std::iter::once_with(|| {
                place(&self.location, self.insecure)
            }))
            .collect()
    }
}
