//! OCI image layouts, as a folder or in an archive: finds the one image for this host.
//!
//! Called by `source::open`. OCI image-spec 1.1: "Image Layout", "Image Index", "Image Manifest".

use anyhow::{Context, Result, bail};

use super::Wanted;
use super::convert::{Described, convert};
use super::document::{Configuration, Descriptor, Index, Manifest, Platform};
use super::files::Files;
use super::layers::{Layers, check_platform, pair};

/// The file that marks a layout.
pub const MARK: &str = "oci-layout";
/// The entry point of a layout.
pub const INDEX: &str = "index.json";

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;
/// Descriptors looked at, in all indexes together and as often as they are listed.
const MAX_DESCRIPTORS: usize = 1024;
/// Bytes of a name; every manifest below an index is given the index's.
const MAX_NAME_BYTES: usize = 1024;

/// The name that builders give.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name that containerd and docker give beside it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A manifest that the index leads to.
struct Candidate {
    descriptor: Descriptor,
    platform: Platform,
    names: Vec<String>,
}

/// What a walk through the indexes has come to.
#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    /// Descriptors looked at.
    descriptors: usize,
}

/// The image in `files` that `wanted` describes.
///
/// # Errors
/// If there is none or more than one, or a document is missing, altered or too large.
pub fn open(files: &Files, wanted: &Wanted<'_>) -> Result<Layers> {
    let index: Index = files.named_document(INDEX)?;
    let mut found = Found::default();
    collect(files, index, &[], MAX_DEPTH, &mut found)?;
    let candidate = choose(found.candidates, wanted, &files.object())?;
    let manifest: Manifest = files.document(&candidate.descriptor)?;
    if !is_configuration(&manifest.config) {
        bail!(
            "{} is not a container image: its configuration is of type {:?}",
            files.object(),
            manifest.config.media_type
        );
    }
    let configuration: Configuration = files.document(&manifest.config)?;
    check_platform(
        &configuration.platform,
        wanted.architecture,
        &files.object(),
    )?;
    let blobs = manifest
        .layers
        .iter()
        .map(|layer| {
            if layer.media_type.ends_with("+encrypted") {
                bail!("layer {} is encrypted", layer.digest);
            }
            let (blob, digest) = files.blob(layer)?;
            Ok((blob, Some(digest)))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Layers {
        layers: pair(blobs, &configuration.rootfs.diff_ids, &files.object())?,
        digest: Some(candidate.descriptor.digest.parse()?),
        manifest: convert(&Described {
            name: candidate.names.first().map(String::as_str).or(wanted.name),
            fallback: wanted.stem,
            architecture: wanted.architecture,
            annotations: &manifest.annotations,
            configuration: &configuration,
        })?,
        names: candidate.names,
    })
}

/// Gathers the manifests of `index` and of the indexes in it; `names` are those of the index itself.
fn collect(
    files: &Files,
    index: Index,
    names: &[String],
    depth: usize,
    found: &mut Found,
) -> Result<()> {
    for descriptor in index.manifests {
        found.descriptors += 1;
        if found.descriptors > MAX_DESCRIPTORS {
            bail!(
                "{} lists more than {MAX_DESCRIPTORS} manifests and indexes",
                files.object()
            );
        }
        let mut names = names.to_vec();
        names.extend(name_of(&descriptor));
        if names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
            bail!(
                "{} holds a name of more than {MAX_NAME_BYTES} bytes",
                files.object()
            );
        }
        if is_index(&descriptor) {
            if depth == 0 {
                bail!("{} nests indexes deeper than {MAX_DEPTH}", files.object());
            }
            let inner = files.document(&descriptor)?;
            collect(files, inner, &names, depth - 1, found)?;
        } else if is_manifest(&descriptor) {
            add(files, descriptor, names, &mut found.candidates)?;
        }
    }
    Ok(())
}

fn add(
    files: &Files,
    descriptor: Descriptor,
    names: Vec<String>,
    into: &mut Vec<Candidate>,
) -> Result<()> {
    if let Some(known) = into
        .iter_mut()
        .find(|candidate| candidate.descriptor.digest == descriptor.digest)
    {
        known.names.extend(names);
        return Ok(());
    }
    let said = descriptor.platform.clone().map(Ok);
    let Some(platform) = said.or_else(|| platform_of(files, &descriptor).transpose()) else {
        return Ok(());
    };
    let platform = platform?;
    into.push(Candidate {
        descriptor,
        platform,
        names,
    });
    Ok(())
}

/// The platform as the configuration has it, for an index that does not say; `None` for what is no container image.
fn platform_of(files: &Files, descriptor: &Descriptor) -> Result<Option<Platform>> {
    let manifest: Manifest = files.document(descriptor)?;
    if !is_configuration(&manifest.config) {
        return Ok(None);
    }
    files
        .document(&manifest.config)
        .context("read the platform of an image")
        .map(Some)
}

fn choose(candidates: Vec<Candidate>, wanted: &Wanted<'_>, object: &str) -> Result<Candidate> {
    if candidates.is_empty() {
        bail!("{object} holds no image");
    }
    let host = Platform {
        os: "linux".to_owned(),
        architecture: wanted.architecture.to_owned(),
    };
    let (mut fitting, other): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|candidate| {
        candidate.platform.architecture.is_empty() || candidate.platform == host
    });
    if fitting.is_empty() {
        let there: Vec<_> = other
            .iter()
            .map(|candidate| {
                format!(
                    "{}/{}",
                    candidate.platform.os, candidate.platform.architecture
                )
            })
            .collect();
        bail!(
            "{object} has no image for this host, linux/{}; it has {}",
            wanted.architecture,
            there.join(", ")
        );
    }
    if fitting.len() > 1 {
        let names: Vec<_> = fitting
            .iter()
            .flat_map(|candidate| candidate.names.clone())
            .collect();
        fitting.retain(|candidate| {
            wanted
                .name
                .is_some_and(|name| candidate.names.iter().any(|known| known == name))
        });
        if fitting.len() != 1 {
            bail!(
                "{object} holds several images for this host ({}); choose one with --name",
                names.join(", ")
            );
        }
    }
    fitting.pop().context("choose an image")
}

fn name_of(descriptor: &Descriptor) -> Option<String> {
    [CONTAINERD_NAME, REF_NAME]
        .iter()
        .find_map(|name| descriptor.annotations.get(*name))
        .cloned()
}

fn is_index(descriptor: &Descriptor) -> bool {
    descriptor.media_type.ends_with("image.index.v1+json")
        || descriptor.media_type.ends_with("manifest.list.v2+json")
}

/// Attestations that builders put beside images are not images. Early layouts leave the type out.
fn is_manifest(descriptor: &Descriptor) -> bool {
    (descriptor.media_type.is_empty()
        || descriptor.media_type.ends_with("image.manifest.v1+json")
        || descriptor
            .media_type
            .ends_with("distribution.manifest.v2+json"))
        && !descriptor
            .annotations
            .contains_key("vnd.docker.reference.type")
}

fn is_configuration(descriptor: &Descriptor) -> bool {
    descriptor.media_type.ends_with("image.config.v1+json")
        || descriptor.media_type.ends_with("container.image.v1+json")
}
