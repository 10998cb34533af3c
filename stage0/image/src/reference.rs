//! References to images in registries: `HOST/REPOSITORY[:TAG][@DIGEST]`, and how short ones are completed.
//!
//! Pure text. The grammar is the one of the reference package of distribution, which docker and podman use.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::source::names::{split_reference, split_registry};
use anyhow::{Result, bail, ensure};

/// The registry that names without a host mean.
pub const DOCKER_HOST: &str = "docker.io";

/// Longest host and repository together, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG_BYTES: usize = 128;

/// An image in a registry, by tag or digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and port of the registry, as the name has them.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path below the host.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest, which counts before any tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The tag, if the name has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Tag or digest, as a registry is asked.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// `HOST/REPOSITORY`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The same tag or digest of another repository.
    ///
    /// # Errors
    /// If `name` is no `HOST/REPOSITORY`.
    pub fn renamed(&self, name: &str) -> Result<Self> {
        let Some((host, repository)) = name.split_once('/') else {
            bail!("{name:?} is no HOST/REPOSITORY");
        };
        let renamed = Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            ..self.clone()
        };
        renamed.check()?;
        Ok(renamed)
    }

    fn check(&self) -> Result<()> {
        check_host(&self.host)?;
        check_repository(&self.repository)?;
        let length = self.host.len() + 1 + self.repository.len();
        ensure!(
            length <= MAX_NAME_BYTES,
            "the name has {length} bytes, more than {MAX_NAME_BYTES}"
        );
        self.tag.as_deref().map_or(Ok(()), check_tag)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digest {
            Some(digest) => write!(f, "{}@{digest}", self.name()),
            None => write!(f, "{}:{}", self.name(), self.version()),
        }
    }
}

impl FromStr for Reference {
    type Err = anyhow::Error;

    /// A reference as docker writes it: without a host it is docker.io's, and there without a path an official image.
    fn from_str(text: &str) -> Result<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (name, tag) = split_reference(rest);
        let (host, repository) = split_registry(name);
        let host = match host.unwrap_or(DOCKER_HOST) {
            "index.docker.io" => DOCKER_HOST,
            host => host,
        };
        let official = host == DOCKER_HOST && !repository.contains('/');
        let reference = Self {
            host: host.to_owned(),
            repository: if official {
                format!("library/{repository}")
            } else {
                repository.to_owned()
            },
            tag: tag.map(str::to_owned),
            digest,
        };
        reference.check()?;
        Ok(reference)
    }
}

/// Whether `text` is a host, or one with a path that repositories may lie at or below.
pub fn is_name(text: &str) -> bool {
    let (host, path) = match text.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (text, None),
    };
    check_host(host).is_ok() && path.is_none_or(|path| check_repository(path).is_ok())
}

/// Whether `text` names a host before its first slash.
pub fn has_host(text: &str) -> bool {
    split_registry(text).0.is_some()
}

fn check_host(host: &str) -> Result<()> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let sound = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(is_label),
    };
    ensure!(
        sound && port.is_none_or(|port| port.parse::<u16>().is_ok()),
        "{host:?} is no host of a registry"
    );
    Ok(())
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    label.bytes().all(inner)
        && label
            .bytes()
            .next()
            .zip(label.bytes().last())
            .is_some_and(|(first, last)| first != b'-' && last != b'-')
}

fn check_repository(repository: &str) -> Result<()> {
    for part in repository.split('/') {
        ensure!(
            is_part(part),
            "{repository:?} is no repository: it is lower-case letters, digits and, between those, ., _ and -"
        );
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_part(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |text: &str| {
        matches!(text, "." | "_" | "__") || (!text.is_empty() && text.chars().all(|c| c == '-'))
    };
    let mut rest = part;
    loop {
        let word = rest.trim_start_matches(plain);
        if word.len() == rest.len() {
            return false;
        }
        if word.is_empty() {
            return true;
        }
        rest = word.trim_start_matches(['.', '_', '-']);
        if !separator(&word[..word.len() - rest.len()]) {
            return false;
        }
    }
}

fn check_tag(tag: &str) -> Result<()> {
    let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let rest = |byte: u8| first(byte) || byte == b'.' || byte == b'-';
    ensure!(
        tag.len() <= MAX_TAG_BYTES
            && tag.bytes().all(rest)
            && tag.bytes().next().is_some_and(first),
        "{tag:?} is no tag: up to {MAX_TAG_BYTES} letters, digits, ., _ and - are"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_reference_is_completed_as_docker_does() {
        for (text, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.19", "docker.io/library/alpine:3.19"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("grafana/loki", "docker.io/grafana/loki:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x/y:1", "localhost:5000/x/y:1"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("quay.io/a__b/c--d.e_f", "quay.io/a__b/c--d.e_f:latest"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), whole);
        }
    }

    #[test]
    fn digest_counts_before_the_tag() {
        let reference: Reference = format!("quay.io/x:1@{DIGEST}").parse().unwrap();
        assert_eq!(reference.to_string(), format!("quay.io/x@{DIGEST}"));
        assert_eq!(reference.version(), DIGEST);
    }

    #[test]
    fn reference_that_could_climb_or_reach_elsewhere_is_refused() {
        for text in [
            "",
            "..",
            "a/../b",
            "quay.io/",
            "quay.io//x",
            "quay.io/X",
            "quay.io/x:",
            "quay.io/x:a/b:c d",
            "quay.io/x?y",
            "quay.io/a___b",
            "quay.io/a..b",
            "user@quay.io/x",
            "quay.io:99999/x",
            "-quay.io/x",
            "[::1/x",
            "quay.io/x@sha256:00",
            "/etc/passwd",
            "./x",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert!(
            format!("quay.io/{}", "a".repeat(300))
                .parse::<Reference>()
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn reference_of_any_text_is_refused_or_comes_back(text in "[a-z0-9.:/@_-]{1,40}|\\PC{0,30}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let whole = reference.to_string();
                prop_assert!(!whole.contains("..") && !whole.contains("//"));
                prop_assert_eq!(whole.parse::<Reference>().unwrap().to_string(), whole);
            }
        }
    }
}
