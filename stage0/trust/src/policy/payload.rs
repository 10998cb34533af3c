//! What a signature of an image says: which manifest is meant, and by what name. container-signature(5).

use anyhow::{Context, Result, ensure};
use image::oci::{Digest, Reference};
use serde::Deserialize;
use serde_json::Value;

use super::strict;

/// What simple signing calls such a document.
pub const SIMPLE: &str = "atomic container signature";
/// What cosign calls it.
pub const SIGSTORE: &str = "cosign container image signature";

/// A claim that was signed.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The name.
    pub name: Reference,
    digest: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    optional: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

/// The members of `optional` that are known; others are anybody's.
#[derive(Default, Deserialize)]
struct Optional {
    #[serde(rename = "creator")]
    _creator: Option<String>,
    #[serde(rename = "timestamp")]
    _timestamp: Option<i64>,
}

impl Claim {
    /// Reads a payload whose signature is good, of the type `kind`.
    ///
    /// # Errors
    /// If it is not exactly such a document.
    pub fn parse(payload: &[u8], kind: &str) -> Result<Self> {
        let Payload { critical, optional } =
            strict::parse(payload).context("read what was signed")?;
        ensure!(
            critical.kind == kind,
            "what was signed is of type {:?}, not {kind:?}",
            critical.kind
        );
        // Cosign writes null where there is nothing.
        ensure!(
            optional.is_object() || (kind == SIGSTORE && optional.is_null()),
            "what was signed has no object \"optional\""
        );
        let _: Option<Optional> =
            serde_json::from_value(optional).context("read what was signed")?;
        let name = critical.identity.docker_reference;
        let digest = critical.image.docker_manifest_digest;
        Ok(Self {
            name: name
                .parse()
                .with_context(|| format!("read the name that was signed, {name:?}"))?,
            digest: digest
                .parse()
                .with_context(|| format!("read the digest that was signed, {digest:?}"))?,
        })
    }

    /// Refuses another manifest than the one that is claimed.
    ///
    /// # Errors
    /// If it is another.
    pub fn check_manifest(&self, manifest: &[u8]) -> Result<()> {
        let found = Digest::of(self.digest.algorithm(), manifest);
        ensure!(
            found == self.digest,
            "it is for an image of digest {}, not this one",
            self.digest
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &[u8] = b"{}";
    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn payload(critical: &str, optional: &str) -> String {
        format!(r#"{{"critical":{{{critical}}},"optional":{optional}}}"#)
    }

    fn critical(kind: &str) -> String {
        format!(
            r#""type":"{kind}","image":{{"docker-manifest-digest":"{DIGEST}"}},"identity":{{"docker-reference":"x:1"}}"#
        )
    }

    #[test]
    fn claim_is_for_one_name_and_one_manifest() {
        let text = payload(&critical(SIMPLE), r#"{"creator":"a","timestamp":1,"b":[]}"#);
        let claim = Claim::parse(text.as_bytes(), SIMPLE).unwrap();
        assert_eq!(claim.name.to_string(), "docker.io/library/x:1");
        assert!(claim.check_manifest(MANIFEST).is_ok());
        assert!(claim.check_manifest(b"{ }").is_err());
        let text = payload(&critical(SIGSTORE), "null");
        assert!(Claim::parse(text.as_bytes(), SIGSTORE).is_ok());
    }

    #[test]
    fn payload_that_is_not_exactly_one_is_refused() {
        let good = critical(SIMPLE);
        for text in [
            payload(&critical(SIGSTORE), "{}"),
            payload(&good, "null"),
            payload(&good, "[]"),
            payload(&good, r#"{"timestamp":"1"}"#),
            payload(&good, r#"{"creator":1}"#),
            payload(&good, r#"{"a":1,"a":1}"#),
            payload(&format!(r#"{good},"more":1"#), "{}"),
            payload(&format!(r#"{good},"type":"{SIMPLE}""#), "{}"),
            payload(&good.replace("x:1", "X"), "{}"),
            payload(&good.replace(DIGEST, "md5:00"), "{}"),
            payload(
                &good.replace("\"docker-reference\"", "\"a\":1,\"docker-reference\""),
                "{}",
            ),
            payload(&good.replace("docker-manifest-digest", "digest"), "{}"),
            payload(&good, "{}").replace("\"optional\":{}", "\"optional\":{},\"x\":1"),
            payload(&good, "{}").replace(",\"optional\":{}", ""),
            payload(&good, "{}") + "x",
        ] {
            assert!(Claim::parse(text.as_bytes(), SIMPLE).is_err(), "{text}");
        }
    }
}
