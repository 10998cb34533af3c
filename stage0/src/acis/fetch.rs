//! One image on its way from its URL into the store: fetched into a folder of its own, verified at a desk, imported from there.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use contract::ImageManifest;
use discovery::{Client, Download, Fetched, Name, Remembered};
use image::{Image, ImportOptions};

use super::dependencies::Above;
use super::fetched::{Place, Record};
use super::{Fetching, Wanted};
use crate::cli::PullPolicy;
use crate::progress::Progress;

impl Fetching<'_> {
    /// The image at `wanted.url`, from the store if the policy allows.
    pub(super) fn fetch(&self, client: &Client, wanted: &Wanted, above: &Above) -> Result<Image> {
        let (image, is_new) = self.fetch_once(client, wanted, above, false)?;
        if is_new
            || self.policy != PullPolicy::Update
            || self.is_above_the_newest(&image, wanted.options, above)?
        {
            return Ok(image);
        }
        // It has not changed, but what lies below it, and its files are kept with those. Others have been asked for these now.
        let anew = Fetching {
            policy: PullPolicy::New,
            ..*self
        };
        anew.fetch_once(client, wanted, above, true)
            .map(|(image, _)| image)
    }

    /// The image, and whether it has just come, as it does in any case if it is wanted `anew`.
    fn fetch_once(
        &self,
        client: &Client,
        wanted: &Wanted,
        above: &Above,
        anew: bool,
    ) -> Result<(Image, bool)> {
        let place = Place::enter(&self.store.downloads(), wanted.url)?;
        let known = place
            .record()?
            .filter(|record| !anew && (record.verified || !self.must_verify()));
        let known = match known {
            Some(record) => self.store.find(&record.id)?.map(|image| (record, image)),
            None => None,
        };
        // What a URL gave for another name was held to other keys.
        let is_wanted = |image: &Image| {
            let name = wanted.name;
            name.is_none_or(|name| check_name(&image.manifest, name).is_ok())
        };
        let known = known.filter(|(_, image)| is_wanted(image));
        if let Some((record, image)) = &known
            && (self.policy != PullPolicy::Update || record.is_current(SystemTime::now()))
        {
            return Ok((image.clone(), false));
        }
        if self.policy == PullPolicy::Never {
            bail!(
                "the store has no image of {}, and --pull-policy=never forbids to fetch it",
                wanted.url
            );
        }
        let signature = self.signature_of(client, wanted)?;
        let etag = known.as_ref().and_then(|(record, _)| record.etag.clone());
        match (self.download(client, &place, wanted, etag)?, known) {
            (Fetched::Unchanged { max_age }, Some((record, image))) => {
                place.remember(&record.asked_again(max_age))?;
                Ok((image, false))
            }
            (Fetched::Unchanged { .. }, None) => bail!("{} has changed, and has not", wanted.url),
            (
                Fetched::File {
                    path,
                    etag,
                    max_age,
                },
                _,
            ) => {
                // Away from here, and the lock let go: of two commands whose images depend on one another neither may
                // wait for the other. What is no good is gone with the desk.
                let desk = self.store.desk()?;
                let image = desk.join("image");
                std::fs::rename(&path, &image)
                    .with_context(|| format!("take {}", path.display()))?;
                place.clear()?;
                drop(place);
                let image = self
                    .verified_import(&image, signature.as_deref(), wanted, above)
                    .with_context(|| format!("fetch {}", wanted.url))?;
                let record = Record::new(&image.id, etag, max_age, signature.is_some());
                Place::enter(&self.store.downloads(), wanted.url)?.remember(&record)?;
                Ok((image, true))
            }
        }
    }

    fn download(
        &self,
        client: &Client,
        place: &Place,
        wanted: &Wanted,
        etag: Option<String>,
    ) -> Result<Fetched> {
        let download = Download {
            client,
            url: wanted.url,
            folder: place.folder(),
            limit: wanted.options.max_image_bytes,
        };
        let progress = Progress::of_name(wanted.url, self.quiet);
        let fetched = download.run(&Remembered { etag }, &|at, total| {
            progress.tell_bytes(at, total);
        });
        progress.end();
        fetched
    }

    fn verified_import(
        &self,
        path: &Path,
        signature: Option<&[u8]>,
        wanted: &Wanted,
        above: &Above,
    ) -> Result<Image> {
        let mut vouched = None;
        if signature.is_some() || wanted.name.is_some() {
            // A name is trusted with its own keys alone, so nobody is believed what he calls his image before.
            if let (Some(name), Some(signature)) = (wanted.name, signature) {
                vouched = Some(self.verify(&name.name, path, signature)?);
            }
            let manifest = self.manifest(path, wanted.options)?;
            match (wanted.name, signature) {
                (Some(name), _) => check_name(&manifest, name)?,
                (None, Some(signature)) => {
                    vouched = Some(self.verify(&manifest.name, path, signature)?);
                }
                (None, None) => {}
            }
        }
        let image = self.import(path, wanted.options, above)?;
        if let Some(by) = vouched {
            self.store.vouch(&image, &[by.to_string()])?;
        }
        Ok(image)
    }

    /// The manifest of the ACI at `path`.
    pub(super) fn manifest(&self, path: &Path, options: &ImportOptions) -> Result<ImageManifest> {
        self.store.aci_manifest(path, options)?.with_context(|| {
            "it is no App Container image, and no other has such a signature or name; \
             --insecure-options=image takes what a URL has unverified"
        })
    }
}

fn check_name(manifest: &ImageManifest, name: &Name) -> Result<()> {
    ensure!(
        manifest.name == name.name,
        "it is the image {}, not {}",
        manifest.name,
        name.name
    );
    for label in &name.labels {
        ensure!(
            manifest.labels.contains(label),
            "its label {} is not {}",
            label.name,
            label.value
        );
    }
    Ok(())
}
