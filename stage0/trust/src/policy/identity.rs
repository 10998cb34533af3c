//! Whether the name that was signed is the name of the image: `signedIdentity` of a policy.

use anyhow::{Context, Result, bail, ensure};
use image::oci::{Reference, is_name};
use serde::Deserialize;

/// A `signedIdentity` as it is written.
#[derive(Debug, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Written {
    MatchExact {},
    MatchRepoDigestOrExact {},
    MatchRepository {},
    ExactReference {
        docker_reference: String,
    },
    ExactRepository {
        docker_repository: String,
    },
    RemapIdentity {
        prefix: String,
        signed_prefix: String,
    },
}

/// Which names count.
#[derive(Clone, Debug)]
pub enum Identity {
    /// The image's.
    Exact,
    /// The image's, or where it is named by digest any of its repository's.
    RepoDigestOrExact,
    /// Any of its repository's.
    Repository,
    /// This one, whatever the image is called.
    Reference(Reference),
    /// Any of the repository of that name, whatever the image is called.
    OfRepository(String),
    /// As `RepoDigestOrExact`, of the image's name with its beginning replaced.
    Remapped {
        prefix: String,
        signed_prefix: String,
    },
}

impl Written {
    /// What it means.
    ///
    /// # Errors
    /// If a name in it is none.
    pub fn checked(self) -> Result<Identity> {
        Ok(match self {
            Self::MatchExact {} => Identity::Exact,
            Self::MatchRepoDigestOrExact {} => Identity::RepoDigestOrExact,
            Self::MatchRepository {} => Identity::Repository,
            Self::ExactReference { docker_reference } => {
                let reference: Reference = docker_reference.parse().context("dockerReference")?;
                ensure!(
                    reference.tag().is_some() || reference.digest().is_some(),
                    "dockerReference {docker_reference:?} has neither tag nor digest"
                );
                Identity::Reference(reference)
            }
            Self::ExactRepository { docker_repository } => {
                let reference: Reference = docker_repository.parse().context("dockerRepository")?;
                Identity::OfRepository(reference.name())
            }
            Self::RemapIdentity {
                prefix,
                signed_prefix,
            } => {
                for name in [&prefix, &signed_prefix] {
                    ensure!(is_name(name), "prefix {name:?} is no HOST[/PATH]");
                }
                Identity::Remapped {
                    prefix,
                    signed_prefix,
                }
            }
        })
    }
}

impl Identity {
    /// Refuses an image called `image` that was signed as `signed`.
    ///
    /// # Errors
    /// If that is no name for it, or the image has none and needs one.
    pub fn check(&self, signed: &Reference, image: Option<&Reference>) -> Result<()> {
        let named = || image.context("the image has no name that a signature could be for");
        let fits = match self {
            Self::Exact => same(signed, named()?),
            Self::RepoDigestOrExact => repo_digest_or_exact(signed, named()?),
            Self::Repository => signed.name() == named()?.name(),
            Self::Reference(reference) => same(signed, reference),
            Self::OfRepository(name) => signed.name() == *name,
            Self::Remapped {
                prefix,
                signed_prefix,
            } => repo_digest_or_exact(signed, &remapped(named()?, prefix, signed_prefix)?),
        };
        if !fits {
            bail!("it is for {signed}, another name");
        }
        Ok(())
    }
}

/// Whether both are the same tag or digest of the same repository; what was signed without either, or with both, is neither.
fn same(signed: &Reference, image: &Reference) -> bool {
    let has_one = signed.tag().is_some() != signed.digest().is_some();
    has_one && signed.to_string() == image.to_string()
}

fn repo_digest_or_exact(signed: &Reference, image: &Reference) -> bool {
    let tagged = signed.tag().is_some() || signed.digest().is_some();
    match image.digest() {
        Some(_) => tagged && signed.name() == image.name(),
        None => same(signed, image),
    }
}

fn remapped(image: &Reference, prefix: &str, signed_prefix: &str) -> Result<Reference> {
    let name = image.name();
    match name.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => image
            .renamed(&format!("{signed_prefix}{rest}"))
            .with_context(|| format!("replace {prefix} by {signed_prefix}")),
        _ => Ok(image.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn identity(text: &str) -> Result<Identity> {
        serde_json::from_str::<Written>(text)?.checked()
    }

    #[test]
    fn signed_name_counts_as_its_kind_says() {
        let by_digest = format!("h.org/a@{DIGEST}");
        let remap = r#"{"type":"remapIdentity","prefix":"h.org/a","signedPrefix":"s.org/b"}"#;
        let reference = r#"{"type":"exactReference","dockerReference":"s.org/x:1"}"#;
        let repository = r#"{"type":"exactRepository","dockerRepository":"s.org/x"}"#;
        for (text, signed, image, fits) in [
            (r#"{"type":"matchExact"}"#, "h.org/a:1", "h.org/a:1", true),
            (
                r#"{"type":"matchExact"}"#,
                "h.org/a:latest",
                "h.org/a",
                true,
            ),
            (r#"{"type":"matchExact"}"#, "h.org/a", "h.org/a", false),
            (r#"{"type":"matchExact"}"#, "h.org/a:1", "h.org/a:2", false),
            (r#"{"type":"matchExact"}"#, "h.org/a:1", &by_digest, false),
            (r#"{"type":"matchExact"}"#, &by_digest, &by_digest, true),
            (
                r#"{"type":"matchRepoDigestOrExact"}"#,
                "h.org/a:1",
                &by_digest,
                true,
            ),
            (
                r#"{"type":"matchRepoDigestOrExact"}"#,
                "h.org/a",
                &by_digest,
                false,
            ),
            (
                r#"{"type":"matchRepoDigestOrExact"}"#,
                "h.org/b:1",
                &by_digest,
                false,
            ),
            (
                r#"{"type":"matchRepoDigestOrExact"}"#,
                "h.org/a:1",
                "h.org/a:2",
                false,
            ),
            (
                r#"{"type":"matchRepoDigestOrExact"}"#,
                &by_digest,
                "h.org/a:2",
                false,
            ),
            (
                r#"{"type":"matchRepository"}"#,
                "h.org/a",
                "h.org/a:2",
                true,
            ),
            (
                r#"{"type":"matchRepository"}"#,
                "h.org/ab",
                "h.org/a:2",
                false,
            ),
            (reference, "s.org/x:1", "h.org/a:2", true),
            (reference, "s.org/x:2", "h.org/a:2", false),
            (repository, "s.org/x:2", "h.org/a:2", true),
            (repository, "s.org/x/y:2", "h.org/a:2", false),
            (remap, "s.org/b:2", "h.org/a:2", true),
            (remap, "s.org/b/c:2", "h.org/a/c:2", true),
            (remap, "s.org/b/c:2", &format!("h.org/a/c@{DIGEST}"), true),
            (remap, "s.org/bc:2", "h.org/ac:2", false),
            (remap, "h.org/ac:2", "h.org/ac:2", true),
        ] {
            let (signed, image) = (signed.parse().unwrap(), image.parse().unwrap());
            let checked = identity(text).unwrap().check(&signed, Some(&image));
            assert_eq!(checked.is_ok(), fits, "{text} {signed} {image}");
        }
    }

    #[test]
    fn image_without_a_name_fits_only_what_names_one() {
        let signed = "s.org/x:1".parse().unwrap();
        for (text, fits) in [
            (r#"{"type":"matchRepository"}"#, false),
            (
                r#"{"type":"exactReference","dockerReference":"s.org/x:1"}"#,
                true,
            ),
        ] {
            assert_eq!(identity(text).unwrap().check(&signed, None).is_ok(), fits);
        }
    }

    #[test]
    fn malformed_identity_is_refused() {
        for text in [
            "{}",
            r#"{"type":"matchAnything"}"#,
            r#"{"type":"matchExact","dockerReference":"x:1"}"#,
            r#"{"type":"exactReference"}"#,
            r#"{"type":"exactReference","dockerReference":"s.org/x"}"#,
            r#"{"type":"exactReference","dockerReference":1}"#,
            r#"{"type":"exactRepository","dockerRepository":"S/../X"}"#,
            r#"{"type":"remapIdentity","prefix":"h.org"}"#,
            r#"{"type":"remapIdentity","prefix":"h.org/a:1","signedPrefix":"s.org"}"#,
            r#"{"type":"remapIdentity","prefix":"h.org","signedPrefix":""}"#,
        ] {
            assert!(identity(text).is_err(), "{text}");
        }
    }
}
