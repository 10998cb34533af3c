//! Whether an image is taken, by the host's signature policy (containers-policy.json(5)), and what is said of it.
//!
//! Called by whoever is about to pull from a registry, or to import what lies at a path. Without a policy every image is
//! taken, and said to be unverified: podman takes none then, but comes with a policy that takes all.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use image::Form;
use registry::Found;
use trust::policy::{Attachment, Evidence, Kinds, Place, Policy};

use crate::settings::Settings;

/// What one command goes by.
#[derive(Debug)]
pub struct Admission {
    policy: Option<Policy>,
    /// Why there is none.
    without: &'static str,
}

impl Admission {
    /// By the policy in `file`, or else the user's, or else the host's.
    ///
    /// # Errors
    /// If the policy cannot be read, or anything in it is not understood.
    pub fn new(file: Option<&Path>, settings: &Settings) -> Result<Self> {
        if settings.fetches_insecurely("image") {
            return Ok(Self {
                policy: None,
                without: "as --insecure-options asks for",
            });
        }
        Ok(Self {
            policy: Policy::load(file, |name| std::env::var_os(name))?,
            without: "there is no policy.json (containers-policy.json(5))",
        })
    }

    /// Who vouches for an image of a registry: nobody, and said so, where nobody must.
    ///
    /// # Errors
    /// If the policy does not allow it, or signatures cannot be had.
    pub fn registry(&self, found: &Found, quiet: bool) -> Result<Vec<String>> {
        let name = found.reference();
        let Some(policy) = &self.policy else {
            crate::note(&format!("{name} is not verified: {}", self.without));
            return Ok(Vec::new());
        };
        let demands = policy.demands(&Place::registry(name));
        let Kinds { simple, sigstore } = demands.wanted();
        let simple = simple.then(|| found.simple_signatures()).transpose()?;
        let sigstore = sigstore.then(|| found.sigstore_signatures()).transpose()?;
        let attached = sigstore.unwrap_or_default().into_iter();
        let attached: Vec<_> = attached
            .map(|one| Attachment {
                payload: one.payload,
                signature: one.signature,
            })
            .collect();
        let vouchers = demands.judge(&Evidence {
            manifest: found.manifest(),
            name: Some(name),
            simple: &simple.unwrap_or_default(),
            sigstore: &attached,
            now: SystemTime::now(),
        })?;
        let by: Vec<_> = vouchers.iter().map(ToString::to_string).collect();
        if by.is_empty() {
            let path = policy.path().display();
            crate::note(&format!(
                "{name} is not verified: {path} asks for no signature"
            ));
        } else if !quiet {
            crate::note(&format!("{name} is signed by {}", by.join(" and ")));
        }
        Ok(by)
    }

    /// The forms of images that the policy does not allow to be imported from `path`, with the reasons; `None` is stdin.
    ///
    /// # Errors
    /// If the path cannot be looked at.
    pub fn barred(&self, path: Option<&Path>) -> Result<Vec<(Form, String)>> {
        let Some(policy) = &self.policy else {
            return Ok(Vec::new());
        };
        let path = path
            .map(|path| {
                path.canonicalize()
                    .with_context(|| format!("look at {}", path.display()))
            })
            .transpose()?;
        let path = path.as_deref().unwrap_or(Path::new("/dev/stdin"));
        let places = [
            (Form::Layout, Place::layout(path, false)),
            (Form::LayoutArchive, Place::layout(path, true)),
            (Form::DockerArchive, Place::docker_archive()),
            (Form::RootFsArchive, Place::tarball()),
        ];
        let refused = places.into_iter().filter_map(|(form, place)| {
            let evidence = Evidence {
                manifest: &[],
                name: None,
                simple: &[],
                sigstore: &[],
                now: SystemTime::now(),
            };
            let judged = policy.demands(&place).judge(&evidence);
            judged.err().map(|error| (form, format!("{error:#}")))
        });
        Ok(refused.collect())
    }
}
