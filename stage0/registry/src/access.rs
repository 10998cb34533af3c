//! How registries are reached: the host's configuration, and what the caller says besides. The way in for a pull.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use transfer::Patience;

use crate::client::Client;
use crate::config::Config;
use crate::credentials::Credentials;
use crate::manifest;
use crate::pull::Found;
use image::oci::Reference;

/// Whether the host's name must be proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Where the configuration does not say that it is insecure; this machine itself may speak without TLS.
    #[default]
    Configured,
    /// Always.
    Yes,
    /// Never; without TLS it goes on in plain text.
    No,
}

/// What the caller says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Instead of the logins that are kept.
    pub credentials: Option<Credentials>,
    /// The file with logins, instead of the usual ones.
    pub authfile: Option<PathBuf>,
    /// A folder with certificates, instead of the usual ones.
    pub cert_dir: Option<PathBuf>,
    /// See there.
    pub verify: Verify,
    /// Most bytes of all blobs of an image.
    pub max_bytes: u64,
    /// How long registries are waited for.
    pub patience: Patience,
}

/// The way to registries.
#[derive(Debug)]
pub struct Access {
    config: Config,
    options: Options,
}

impl Access {
    /// Reads the host's configuration.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn new(options: Options) -> Result<Self> {
        Self::configured(options, |name| std::env::var_os(name))
    }

    /// Reads the configuration that these variables of an environment lead to.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn configured(
        options: Options,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        Ok(Self {
            config: Config::load(variable)?,
            options,
        })
    }

    /// What a name may mean, most likely first.
    ///
    /// # Errors
    /// If it is no reference, or has no host and no registry is to be searched.
    pub fn candidates(&self, name: &str) -> Result<Vec<Reference>> {
        self.config.candidates(name)
    }

    /// Asks what `reference` is for linux on `architecture`, of mirrors first; nothing but documents is fetched.
    ///
    /// # Errors
    /// If none of them has it, or it is no image for that architecture.
    pub fn find(&self, reference: &Reference, architecture: &str) -> Result<Found> {
        let mut failed = Vec::new();
        for endpoint in self.config.endpoints(reference)? {
            let place = endpoint.reference.to_string();
            // A login that was given for the registry is no mirror's to see.
            let mut options = self.options.clone();
            if endpoint.reference.host() != reference.host() {
                options.credentials = None;
            }
            let found = Client::open(endpoint, &options)
                .and_then(|client| manifest::find(client, architecture));
            match found {
                Ok(chosen) => {
                    return Ok(Found::new(
                        reference.clone(),
                        chosen,
                        architecture,
                        self.options.max_bytes,
                    ));
                }
                Err(error) => failed.push((place, error)),
            }
        }
        let asked = format!("ask for {reference}");
        match failed.pop() {
            Some((_, error)) if failed.is_empty() => Err(error).context(asked),
            last => {
                failed.extend(last);
                let failed = failed
                    .iter()
                    .map(|(place, error)| format!("{place}: {error:#}"));
                Err(anyhow!("{}", failed.collect::<Vec<_>>().join("; "))).context(asked)
            }
        }
    }

    /// The place to send `reference` to: never a mirror.
    ///
    /// # Errors
    /// If its registry is blocked or cannot be reached.
    pub(crate) fn target(&self, reference: &Reference) -> Result<Client> {
        let mut endpoints = self.config.endpoints(reference)?;
        let endpoint = endpoints.pop().context("no registry to send it to")?;
        Client::open(endpoint, &self.options)
    }
}
