//! A layout's way into a registry: blobs that it lacks, then the manifest.
//!
//! OCI distribution-spec 1.1, "Pushing Blobs": one POST and one PUT for each.

use std::fs;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use image::oci::{self, Descriptor, Digest, INDEX, Index, Manifest, Reference};
use reqwest::blocking::Body;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, StatusCode, Url};
use transfer::{Attempts, Cancel, Fault};

use crate::access::Access;
use crate::client::{Client, same_origin};

/// What a registry has by now.
#[derive(Debug)]
pub struct Pushed {
    /// Of the manifest.
    pub digest: Digest,
    /// Of blobs that the registry lacked.
    pub bytes_sent: u64,
}

/// Sends the one image of the OCI layout `layout` to `reference`; `progress` is told bytes sent and bytes in all.
///
/// # Errors
/// If the layout has not one image, or the registry does not take it.
pub fn push(
    access: &Access,
    layout: &Path,
    reference: &Reference,
    progress: &dyn Fn(u64, u64),
) -> Result<Pushed> {
    let send = || {
        let (descriptor, bytes) = only_manifest(layout)?;
        let digest: Digest = descriptor.digest.parse()?;
        ensure!(
            reference.digest().is_none_or(|wanted| *wanted == digest),
            "the image's digest is {digest}"
        );
        let manifest: Manifest = oci::parse(&bytes, "the manifest")?;
        let push = Push {
            client: access.target(reference)?,
            layout,
            cancel: Cancel::default(),
        };
        let blobs: Vec<_> = std::iter::once(&manifest.config)
            .chain(&manifest.layers)
            .collect();
        let total = blobs.iter().map(|blob| blob.size).sum();
        let (mut done, mut bytes_sent) = (0, 0);
        for blob in blobs {
            if push
                .blob(blob)
                .with_context(|| format!("send blob {}", blob.digest))?
            {
                bytes_sent += blob.size;
            }
            done += blob.size;
            progress(done, total);
        }
        push.manifest(&descriptor, &bytes)?;
        Ok(Pushed { digest, bytes_sent })
    };
    send().with_context(|| format!("push {reference}"))
}

fn only_manifest(layout: &Path) -> Result<(Descriptor, Vec<u8>)> {
    let path = layout.join(INDEX);
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let mut index: Index = oci::parse(&read(&path)?, &path.display().to_string())?;
    ensure!(
        index.manifests.len() == 1 && !oci::is_index(&index.manifests[0]),
        "{} does not list one image",
        path.display()
    );
    let descriptor = index.manifests.remove(0);
    let digest: Digest = descriptor.digest.parse()?;
    let bytes = read(&layout.join(digest.blob_path()))?;
    ensure!(
        Digest::of(digest.algorithm(), &bytes) == digest,
        "wrong digest: manifest {digest} is another"
    );
    Ok((descriptor, bytes))
}

struct Push<'a> {
    client: Client,
    layout: &'a Path,
    cancel: Cancel,
}

impl Push<'_> {
    /// Sends a blob; false if the registry has it.
    fn blob(&self, blob: &Descriptor) -> Result<bool> {
        let digest: Digest = blob.digest.parse()?;
        if self.has(&digest)? {
            return Ok(false);
        }
        let path = self.layout.join(digest.blob_path());
        Attempts::new(self.client.patience(), &self.cancel)
            .persist(|| self.upload(&path, &digest, blob.size))?;
        Ok(true)
    }

    fn has(&self, digest: &Digest) -> Result<bool> {
        let address = self.client.address(&format!("blobs/{digest}"));
        Attempts::new(self.client.patience(), &self.cancel).persist(|| {
            // A refusal has no body here, and what is missing is no failure.
            match self
                .client
                .send(&|| Ok(self.client.request(Method::HEAD, &address)))
            {
                Ok(response) => Ok(response.status() == StatusCode::OK),
                Err(Fault::Lasting(_)) => Ok(false),
                Err(fault) => Err(fault),
            }
        })
    }

    fn upload(&self, path: &Path, digest: &Digest, size: u64) -> Result<(), Fault> {
        let begin = self.client.address("blobs/uploads/");
        let response = self.client.send(&|| {
            let request = self.client.request(Method::POST, &begin);
            Ok(request.body(""))
        })?;
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let location = location.context("the registry does not say where to send it")?;
        let mut address = self.place(location)?;
        address
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let patience = self.client.patience();
        // As slow as a download may be.
        let paces = size / patience.least_bytes.max(1);
        let time = patience
            .pace
            .saturating_mul(u32::try_from(paces).unwrap_or(u32::MAX));
        self.client.send(&|| {
            let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
            let request = self.client.request(Method::PUT, address.as_str());
            Ok(request
                .header(CONTENT_TYPE, "application/octet-stream")
                .timeout(patience.answer.saturating_add(time))
                .body(Body::sized(file, size)))
        })?;
        Ok(())
    }

    /// Where a `Location` leads: on this registry, as what is sent there has its authorization.
    fn place(&self, location: &str) -> Result<Url, Fault> {
        let origin = self.client.origin();
        let base: Url = origin.parse().context("read the registry's address")?;
        let place = base.join(location).context("read where to send it")?;
        same_origin(place.as_str(), base.as_str().trim_end_matches('/'))?;
        Ok(place)
    }

    fn manifest(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        let version = self.client.endpoint().reference.version();
        let address = self.client.address(&format!("manifests/{version}"));
        Attempts::new(self.client.patience(), &self.cancel)
            .persist(|| {
                self.client.send(&|| {
                    let request = self.client.request(Method::PUT, &address);
                    let request = request.header(CONTENT_TYPE, descriptor.media_type.as_str());
                    Ok(request.body(bytes.to_vec()))
                })
            })
            .context("send the manifest")
            .map(drop)
    }
}
