//! From a name on the command line to an image of the store, by way of registries.
//!
//! Called by `images` for words that are no paths, and by `image push`. What is pulled is laid out on a desk in the
//! store, and imported from there as any OCI layout.

use std::fs;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use contract::quantity;
use image::oci::Digest;
use image::{Image, ImportOptions, SHARED_LAYERS, Store};
use registry::{Access, Blobs, Found, Options, Patience, Reference, Verify};

use crate::acis::Fetching;
use crate::cli::{PullPolicy, RegistryFlags};
use crate::images::Importing;
use crate::policy::Admission;
use crate::progress::Progress;
use crate::settings::Settings;

/// What says that an image is a registry's, as in rkt and skopeo.
const SCHEME: &str = "docker://";

/// Fetched blobs are kept for other images up to this many bytes.
const KEPT_BYTES: u64 = 4 << 30;

/// When registries are asked, and how.
#[derive(Clone, Copy, Debug)]
pub struct Pulling<'a> {
    policy: PullPolicy,
    flags: &'a RegistryFlags,
    settings: &'a Settings,
}

impl<'a> Pulling<'a> {
    /// As the flags of one command and the global ones say.
    pub fn new(policy: PullPolicy, flags: &'a RegistryFlags, settings: &'a Settings) -> Self {
        let policy = match (flags.no_store, flags.store_only) {
            (true, _) => PullPolicy::Update,
            (_, true) => PullPolicy::Never,
            _ => policy,
        };
        Self {
            policy,
            flags,
            settings,
        }
    }

    /// The same, but that what the store has is as good as what others have: a stage 1 is not asked for anew by each pod.
    #[must_use]
    pub fn without_updates(self) -> Self {
        let policy = match self.policy {
            PullPolicy::Update => PullPolicy::New,
            policy => policy,
        };
        Self { policy, ..self }
    }

    /// How App Container images are fetched.
    pub fn of_acis(&self, store: &'a Store, importing: Importing<'a>) -> Fetching<'a> {
        Fetching {
            store,
            settings: self.settings,
            policy: self.policy,
            signature: importing.signature,
            quiet: importing.quiet,
        }
    }

    /// What images are taken by.
    ///
    /// # Errors
    /// If the host's signature policy is malformed.
    pub fn admission(&self, importing: Importing) -> Result<Admission> {
        Admission::new(importing.signature_policy, self.settings)
    }

    /// How registries are reached.
    ///
    /// # Errors
    /// If the host's configuration is malformed.
    pub fn access(&self, max_bytes: u64) -> Result<Access> {
        let verify = match self.flags.tls_verify {
            Some(true) => Verify::Yes,
            Some(false) => Verify::No,
            None if ["tls", "http"]
                .iter()
                .any(|option| self.settings.fetches_insecurely(option)) =>
            {
                Verify::No
            }
            None => Verify::Configured,
        };
        Access::new(Options {
            credentials: self.flags.creds.clone(),
            authfile: self.flags.authfile.clone(),
            cert_dir: self.flags.cert_dir.clone(),
            verify,
            max_bytes,
            patience: Patience::default(),
        })
    }
}

/// The image that `word` names: of the store, or of a registry if the policy allows to ask one.
///
/// # Errors
/// If nobody has it, or it cannot be pulled; the error says what was tried.
pub fn resolve(store: &Store, word: &str, importing: Importing, pulling: Pulling) -> Result<Image> {
    let policy = pulling.policy;
    let named = word.strip_prefix(SCHEME);
    if named.is_none()
        && (policy != PullPolicy::Update || is_id(word))
        && let Some(image) = store.find(word)?
    {
        return Ok(image);
    }
    let missing = || {
        format!(
            "{word:?} is neither a path nor an image of the store (`fairing image list` shows those; a command to run goes \
             after --)"
        )
    };
    if is_id(word) || word.starts_with(['.', '/']) {
        bail!(missing());
    }
    let options = options(importing)?;
    let access = pulling.access(options.max_image_bytes)?;
    let candidates = match named {
        Some(name) => vec![
            name.parse()
                .with_context(|| format!("read the reference {word:?}"))?,
        ],
        None => access.candidates(word).with_context(missing)?,
    };
    if policy != PullPolicy::Update
        && let Some(image) = known(store, &candidates)?
    {
        return Ok(image);
    }
    if policy == PullPolicy::Never {
        bail!(
            "{}, and --pull-policy=never forbids to ask a registry",
            missing()
        );
    }
    let pull = Pull {
        store,
        access: &access,
        admission: pulling.admission(importing)?,
        options: &options,
        quiet: importing.quiet,
    };
    let mut failed = Vec::new();
    for reference in &candidates {
        match pull.image(reference) {
            Ok(image) => return Ok(image),
            Err(error) => failed.push(error),
        }
    }
    let only = if failed.len() == 1 {
        failed.pop()
    } else {
        None
    };
    match (only, named) {
        (Some(error), Some(_)) => Err(error),
        (Some(error), None) => Err(error).with_context(missing),
        (None, _) => {
            let reasons: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
            bail!(
                "{}, and none of those it may stand for could be pulled: {}",
                missing(),
                reasons.join("; ")
            )
        }
    }
}

/// Whether a word is an id or a digest, which no registry knows by itself.
fn is_id(word: &str) -> bool {
    word.starts_with("sha512-") || word.starts_with("sha256:")
}

/// How images are imported.
///
/// # Errors
/// If the limit is no quantity.
pub fn options(importing: Importing) -> Result<ImportOptions> {
    let mut options = ImportOptions::default();
    if let Some(limit) = importing.max_image_size {
        options.max_image_bytes = quantity::parse_whole(limit)?;
    }
    Ok(options)
}

/// The first of `candidates` that the store has, by its whole name or by its digest.
fn known(store: &Store, candidates: &[Reference]) -> Result<Option<Image>> {
    for reference in candidates {
        let digest = reference.digest().map(ToString::to_string);
        for word in std::iter::once(reference.to_string()).chain(digest) {
            if let Some(image) = store.find(&word)? {
                return Ok(Some(image));
            }
        }
    }
    Ok(None)
}

/// How the images of one command are pulled.
struct Pull<'a> {
    store: &'a Store,
    access: &'a Access,
    admission: Admission,
    options: &'a ImportOptions,
    quiet: bool,
}

impl Pull<'_> {
    fn image(&self, reference: &Reference) -> Result<Image> {
        let found = self.access.find(reference, &self.options.architecture)?;
        let vouched = self
            .admission
            .registry(&found, self.quiet)
            .with_context(|| format!("pull {reference}"))?;
        let image = match self.store.find(&found.digest().to_string())? {
            Some(image) => image,
            None => self.missing(&found)?,
        };
        let image = self.named(&image, reference)?;
        if !vouched.is_empty() {
            self.store.vouch(&image, &vouched)?;
        }
        Ok(image)
    }

    fn named(&self, image: &Image, reference: &Reference) -> Result<Image> {
        self.store.tag(image, &[reference.to_string()])?;
        let named = self.store.find(&image.id)?;
        named.with_context(|| format!("image {} was removed meanwhile", image.id))
    }

    fn missing(&self, found: &Found) -> Result<Image> {
        let blobs = Blobs::new(self.store.blobs());
        let image = self
            .fetch(found, &blobs)
            .with_context(|| format!("pull {}", found.reference()));
        if let Err(error) = blobs.trim(KEPT_BYTES) {
            crate::warn(&error);
        }
        image
    }

    fn fetch(&self, found: &Found, blobs: &Blobs) -> Result<Image> {
        let desk = self.store.desk()?;
        let layout = desk.join("layout");
        fs::create_dir(&layout).with_context(|| format!("create {}", layout.display()))?;
        let progress = Progress::of_name(&found.reference().to_string(), self.quiet);
        // They stay until the import has them.
        let held = Mutex::new(Vec::new());
        let is_shared = found.layer_blobs().count() <= SHARED_LAYERS;
        let has = |diff_id: &Digest| {
            let held_layer = || self.store.hold_layer(diff_id).ok().flatten();
            let lease = is_shared.then(held_layer).flatten();
            let is_here = lease.is_some();
            held.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(lease);
            is_here
        };
        let fetched = found.fetch(blobs, &layout, &has, &|step| progress.tell_pull(step));
        let image = fetched.map(|()| {
            let tell = |step| progress.tell(step);
            self.store.import(&layout, self.options, &tell)
        });
        progress.end();
        match &image {
            // The image is made of them by now.
            Ok(Ok(_)) => blobs.forget(found.layer_blobs()),
            // Should one be damaged, the next attempt must not find it again.
            Ok(Err(_)) => blobs.forget(found.blobs()),
            // Those that came stay for the next attempt.
            Err(_) => {}
        }
        image?
    }
}

/// Sends `image` to the registry that `destination` names; gives the digest of its manifest there.
///
/// # Errors
/// If the image is damaged, or the registry does not take it.
pub fn push(
    store: &Store,
    image: &Image,
    destination: &str,
    pulling: Pulling,
    quiet: bool,
) -> Result<String> {
    let reference: Reference = destination
        .strip_prefix(SCHEME)
        .unwrap_or(destination)
        .parse()
        .with_context(|| format!("read the destination {destination:?}"))?;
    let desk = store.desk()?;
    let layout = desk.join("layout");
    store.write_layout(image, Some(&reference.to_string()), &layout)?;
    let access = pulling.access(u64::MAX)?;
    let progress = Progress::of_name(&reference.to_string(), quiet);
    let pushed = registry::push(&access, &layout, &reference, &|done, total| {
        progress.tell_bytes(done, Some(total));
    });
    progress.end();
    Ok(pushed?.digest.to_string())
}
