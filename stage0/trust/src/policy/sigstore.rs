//! Signatures by sigstore's keys: ECDSA over P-256 and SHA-256, made by cosign, podman or skopeo.

use anyhow::{Context, Result};
use image::oci::{Algorithm, Digest};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{DerSignature, VerifyingKey};
use p256::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};

/// A signature that lies in a registry beside its image.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// What was signed.
    pub payload: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// A public key.
#[derive(Clone, Debug)]
pub struct Key(VerifyingKey);

impl Key {
    /// Reads a key in PEM.
    ///
    /// # Errors
    /// If it is none of that kind.
    pub fn parse(pem: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(pem).ok();
        let key = text.and_then(|text| VerifyingKey::from_public_key_pem(text.trim()).ok());
        key.map(Self).context(
            "not a public key of ECDSA over P-256 in PEM; other keys of sigstore are not supported",
        )
    }

    /// The digest of the key, by which it is called.
    pub fn fingerprint(&self) -> String {
        let der = self.0.to_public_key_der();
        der.map_or_else(
            |_| String::new(),
            |der| Digest::of(Algorithm::Sha256, der.as_bytes()).to_string(),
        )
    }
}

/// The one of `keys` that has made the signature.
///
/// # Errors
/// If none has.
pub fn by_whom<'a>(keys: &'a [Key], attachment: &Attachment) -> Result<&'a Key> {
    let signature =
        DerSignature::from_bytes(&attachment.signature).context("not a signature by ECDSA")?;
    let made = |key: &&Key| key.0.verify(&attachment.payload, &signature).is_ok();
    let key = keys.iter().find(made);
    key.context("it was not made by a key that is trusted for this image")
}
