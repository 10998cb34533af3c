//! Detached signatures over a file: which of them are good, by whom.
//!
//! A file with a signature may hold several; one good one is enough. RFC 9580, section 10.4.

use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use pgp::composed::{Deserializable, DetachedSignature};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};

use crate::certificate::Certificate;

/// Bytes of a file of signatures.
pub const MAX_SIGNATURE_BYTES: u64 = 64 << 10;
/// Signatures looked at; each may cost a reading of the whole file.
const MAX_SIGNATURES: usize = 4;
/// How far the signer's clock may be ahead.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// Who has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The trusted key's fingerprint.
    pub fingerprint: String,
    /// Who its owner says to be.
    pub users: Vec<String>,
}

/// Whether one of `trusted` has signed `content`, by a signature in `signatures`, armored or not.
///
/// # Errors
/// If none has, with what is wrong with each signature; or something cannot be read.
pub fn verify(
    trusted: &[Certificate],
    signatures: &[u8],
    content: &mut (impl Read + Seek),
    now: SystemTime,
) -> Result<Signer> {
    let mut reasons = Vec::new();
    for signature in read_all(signatures)? {
        match by_whom(trusted, &signature, content, now) {
            Ok(signer) => return Ok(signer),
            Err(error) => reasons.push(format!("{error:#}")),
        }
    }
    bail!("no good signature: {}", reasons.join("; "))
}

fn read_all(bytes: &[u8]) -> Result<Vec<Signature>> {
    ensure!(
        bytes.len() as u64 <= MAX_SIGNATURE_BYTES,
        "more than {MAX_SIGNATURE_BYTES} bytes are no signature"
    );
    let (found, _) =
        DetachedSignature::from_reader_many(bytes).context("not an OpenPGP signature")?;
    let mut signatures = Vec::new();
    for signature in found.take(MAX_SIGNATURES) {
        signatures.push(signature.context("a damaged OpenPGP signature")?.signature);
    }
    if signatures.is_empty() {
        bail!("no OpenPGP signature in it");
    }
    Ok(signatures)
}

/// Refuses a signature of the wrong kind or time.
fn check(signature: &Signature, now: SystemTime) -> Result<()> {
    ensure!(
        signature.typ() == Some(SignatureType::Binary),
        "it is not a signature over a file"
    );
    let hash = signature.hash_alg().unwrap_or(HashAlgorithm::None);
    ensure!(!is_weak(hash), "its digest {hash} is too weak");
    let created = signature.created().context("it has no date")?;
    let created = UNIX_EPOCH + Duration::from_secs(created.as_secs().into());
    ensure!(
        created < now + CLOCK_SKEW,
        "it was made in the future; is this host's clock right?"
    );
    let lasts = signature.signature_expiration_time();
    if let Some(lasts) = lasts.filter(|lasts| lasts.as_secs() > 0) {
        let lasts = Duration::from_secs(lasts.as_secs().into());
        ensure!(now < created + lasts, "it has expired");
    }
    Ok(())
}

/// The one of `trusted` who has made `signature` over `content`, which is of the right kind and time.
pub(crate) fn by_whom(
    trusted: &[Certificate],
    signature: &Signature,
    content: &mut (impl Read + Seek),
    now: SystemTime,
) -> Result<Signer> {
    check(signature, now)?;
    let candidates = trusted.iter().flat_map(|certificate| {
        let components = certificate.components(signature);
        components.map(move |component| (certificate, component))
    });
    let mut reason = None;
    for (certificate, component) in candidates {
        content.seek(SeekFrom::Start(0)).context("read the file")?;
        let checked = certificate
            .check(&component, now)
            .and_then(|()| certificate.verify(&component, signature, &mut *content));
        match checked {
            Ok(()) => {
                return Ok(Signer {
                    fingerprint: certificate.fingerprint(),
                    users: certificate.users(),
                });
            }
            Err(error) => reason = Some(error),
        }
    }
    Err(reason.unwrap_or_else(|| {
        let by = signature.issuer_key_id();
        let by = by.first().map_or("unknown".to_owned(), ToString::to_string);
        anyhow::anyhow!("it was made by the key {by}, which is not trusted for this image")
    }))
}

/// Digests for which others with the same value can be made, or nearly.
pub(crate) fn is_weak(hash: HashAlgorithm) -> bool {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha224, Sha256, Sha384, Sha512};
    !matches!(
        hash,
        Sha224 | Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512
    )
}
