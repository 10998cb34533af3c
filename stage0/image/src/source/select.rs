//! Indexes of images: finds the one manifest for this host, in a layout or a registry alike.
//!
//! Called by the layout reader and by the pull from a registry. OCI image-spec 1.1: "Image Index".

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use super::document::{Descriptor, Index, Manifest, Platform};

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

/// Where the documents are that an index leads to.
pub trait Documents {
    /// What holds them, for errors.
    fn object(&self) -> String;

    /// The document that `descriptor` points to, its size and digest checked.
    ///
    /// # Errors
    /// If it is missing, too large, altered, or not such a document.
    fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T>;
}

/// Which of several manifests for this host is meant.
#[derive(Clone, Copy, Debug)]
pub enum Several<'a> {
    /// The one so called.
    Named(Option<&'a str>),
    /// The first, as registries list variants of one architecture: best known first.
    First,
}

/// A manifest that the index leads to.
pub struct Candidate {
    /// Points to it.
    pub descriptor: Descriptor,
    platform: Platform,
    /// What the indexes above call it.
    pub names: Vec<String>,
}

/// What a walk through the indexes has come to.
#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    /// Descriptors looked at.
    descriptors: usize,
}

/// The manifest for linux on `architecture` that `index` leads to.
///
/// # Errors
/// If there is none, or more than one and no telling which, or a document is missing, altered or too large.
pub fn select(
    documents: &impl Documents,
    index: Index,
    architecture: &str,
    several: Several<'_>,
) -> Result<Candidate> {
    let mut found = Found::default();
    collect(documents, index, &[], MAX_DEPTH, &mut found)?;
    choose(found.candidates, architecture, several, &documents.object())
}

/// Gathers the manifests of `index` and of the indexes in it; `names` are those of the index itself.
fn collect(
    documents: &impl Documents,
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
                documents.object()
            );
        }
        let mut names = names.to_vec();
        names.extend(name_of(&descriptor));
        if names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
            bail!(
                "{} holds a name of more than {MAX_NAME_BYTES} bytes",
                documents.object()
            );
        }
        if is_index(&descriptor) {
            if depth == 0 {
                bail!(
                    "{} nests indexes deeper than {MAX_DEPTH}",
                    documents.object()
                );
            }
            let inner = documents.document(&descriptor)?;
            collect(documents, inner, &names, depth - 1, found)?;
        } else if is_manifest(&descriptor) {
            add(documents, descriptor, names, &mut found.candidates)?;
        }
    }
    Ok(())
}

fn add(
    documents: &impl Documents,
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
    let Some(platform) = said.or_else(|| platform_of(documents, &descriptor).transpose()) else {
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
fn platform_of(documents: &impl Documents, descriptor: &Descriptor) -> Result<Option<Platform>> {
    let manifest: Manifest = documents.document(descriptor)?;
    if !is_configuration(&manifest.config.media_type) {
        return Ok(None);
    }
    documents
        .document(&manifest.config)
        .context("read the platform of an image")
        .map(Some)
}

fn choose(
    candidates: Vec<Candidate>,
    architecture: &str,
    several: Several<'_>,
    object: &str,
) -> Result<Candidate> {
    if candidates.is_empty() {
        bail!("{object} holds no image");
    }
    let host = Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
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
            architecture,
            there.join(", ")
        );
    }
    match several {
        Several::First => fitting.truncate(1),
        Several::Named(_) if fitting.len() == 1 => {}
        Several::Named(wanted) => retain_named(&mut fitting, wanted, object)?,
    }
    fitting.pop().context("choose an image")
}

fn retain_named(fitting: &mut Vec<Candidate>, wanted: Option<&str>, object: &str) -> Result<()> {
    let names: Vec<_> = fitting
        .iter()
        .flat_map(|candidate| candidate.names.clone())
        .collect();
    let called = |name| move |known: &String| known == name;
    fitting.retain(|candidate| wanted.is_some_and(|name| candidate.names.iter().any(called(name))));
    if fitting.len() != 1 {
        bail!(
            "{object} holds several images for this host ({}); choose one with --name",
            names.join(", ")
        );
    }
    Ok(())
}

fn name_of(descriptor: &Descriptor) -> Option<String> {
    [CONTAINERD_NAME, REF_NAME]
        .iter()
        .find_map(|name| descriptor.annotations.get(*name))
        .cloned()
}

/// Whether it points to an index, docker's manifest list included.
pub fn is_index(descriptor: &Descriptor) -> bool {
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

/// Whether it is the configuration of a container image; artefacts have others.
pub fn is_configuration(media_type: &str) -> bool {
    media_type.ends_with("image.config.v1+json") || media_type.ends_with("container.image.v1+json")
}
