//! App Container images by URL, by name, and by path where they depend on others or have a signature.
//!
//! Called by `images`. What comes over the network is fetched into a folder of the store, verified there, and imported
//! as any file; dependencies that the store lacks are fetched the same way, by their names.

mod dependencies;
mod fetch;
mod fetched;
mod signed;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use discovery::{Access, Client, Endpoint, Name, Patience};
use image::{Image, ImportOptions, Store};

use crate::cli::PullPolicy;
use crate::settings::Settings;
use dependencies::Above;

pub use fetched::{collect, sweep};
pub use signed::{discover_keys, read_key};

/// What a command says about the images that it names.
#[derive(Clone, Copy, Debug)]
pub struct Fetching<'a> {
    /// Where they go.
    pub store: &'a Store,
    /// Protections that are switched off, and where keys are.
    pub settings: &'a Settings,
    /// When others are asked.
    pub policy: PullPolicy,
    /// `--signature`.
    pub signature: Option<&'a Path>,
    /// No progress on a terminal.
    pub quiet: bool,
}

/// One image on its way.
struct Wanted<'a> {
    url: &'a str,
    /// Where its signature is.
    signature: String,
    /// What it must be called.
    name: Option<&'a Name>,
    options: &'a ImportOptions,
}

impl Fetching<'_> {
    /// The image at an `http:` or `https:` URL; `None` for a word that is no such URL.
    ///
    /// # Errors
    /// If it cannot be had, is not signed as it must be, or cannot be imported.
    pub fn url(&self, word: &str, options: &ImportOptions) -> Option<Result<Image>> {
        if !word.starts_with("https://") && !word.starts_with("http://") {
            return None;
        }
        let fetch = || {
            let wanted = Wanted {
                url: word,
                signature: signature_url(word),
                name: None,
                options,
            };
            self.fetch(&client(self.settings)?, &wanted, &Above::default())
        };
        Some(fetch())
    }

    /// The image called `name`, from the store if the policy allows, else from where its discovery page says.
    ///
    /// # Errors
    /// If nobody has it, it is not signed as it must be, or cannot be imported.
    pub fn name(&self, name: &Name, options: &ImportOptions) -> Result<Image> {
        self.named(name, options, &Above::default())
    }

    /// What lies at `path`, verified first if `--signature` was given.
    ///
    /// # Errors
    /// If the signature is not good, or it cannot be imported.
    pub fn path(&self, path: &Path, options: &ImportOptions) -> Result<Image> {
        let Some(signature) = self.signature.filter(|_| self.must_verify()) else {
            return self.import(path, options, &Above::default());
        };
        // A copy of its own: what has been verified is what is imported.
        let desk = self.store.desk()?;
        let name = path.file_name().context("a folder has no signature")?;
        let copy = desk.join(name);
        std::fs::copy(path, &copy).with_context(|| format!("copy {}", path.display()))?;
        let bytes = signed::read_signature(signature)?;
        let manifest = self.manifest(&copy, options)?;
        let by = self
            .verify(&manifest.name, &copy, &bytes)
            .with_context(|| format!("verify {}", path.display()))?;
        let image = self.import(&copy, options, &Above::default())?;
        self.store.vouch(&image, &[by.to_string()])?;
        Ok(image)
    }

    fn named(&self, name: &Name, options: &ImportOptions, above: &Above) -> Result<Image> {
        if self.policy != PullPolicy::Update
            && let Some(image) = self.store.find_labelled(&name.name, &name.labels)?
        {
            return Ok(image);
        }
        if self.policy == PullPolicy::Never {
            bail!("the store has no image {name}, and --pull-policy=never forbids to ask for it");
        }
        let client = client(self.settings)?;
        let complete = name
            .clone()
            .or_label("os", "linux")
            .or_label("arch", image::appc_architecture(&options.architecture));
        let endpoints = discovery::image(&client, &complete)?;
        if self.must_verify() && self.settings.trust_keys_from_https {
            signed::trust_found(&client, self.settings, &complete)?;
        }
        let mut failed = None;
        for Endpoint { aci, asc } in endpoints {
            let wanted = Wanted {
                url: &aci,
                signature: asc,
                name: Some(name),
                options,
            };
            match self.fetch(&client, &wanted, above) {
                Ok(image) => return Ok(image),
                Err(error) => failed = Some(failed.unwrap_or(error)),
            }
        }
        Err(failed.with_context(|| format!("nobody offers image {name}"))?)
    }
}

/// A client that may do what the global flags say.
///
/// # Errors
/// If TLS cannot be set up.
pub fn client(settings: &Settings) -> Result<Client> {
    let access = Access {
        http: settings.fetches_insecurely("http"),
        any_certificate: settings.fetches_insecurely("tls"),
    };
    Client::new(access, Patience::default())
}

/// The signature lies beside the image: `X.aci.asc` for `X.aci`, or for `X`.
fn signature_url(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (path, rest) = url.split_at(end);
    format!("{}.aci.asc{rest}", path.trim_end_matches(".aci"))
}

/// A path of `settings`'s configuration, for the key that `trust` writes.
pub fn own_folder(settings: &Settings) -> Result<PathBuf> {
    match &settings.user_config {
        _ if nix::unistd::geteuid().is_root() => Ok(settings.local_config.clone()),
        Some(folder) => Ok(folder.clone()),
        None => bail!("there is no folder for a user's configuration; --user-config names one"),
    }
}
