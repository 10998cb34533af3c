//! One requirement of a policy, and whether an image meets it.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use contract::bounded;

use super::identity::Identity;
use super::payload::{Claim, SIGSTORE, SIMPLE};
use super::sigstore::{self, Key};
use super::{Evidence, Voucher};
use crate::certificate::{Certificate, MAX_KEY_BYTES};
use crate::message;

/// Reasons told of signatures that do not count.
const MAX_REASONS: usize = 3;

/// What is required of an image.
#[derive(Clone, Debug)]
pub enum Requirement {
    /// Nothing.
    AcceptAnything,
    /// What no image can meet.
    Reject,
    /// An OpenPGP signature.
    SignedBy(Keys),
    /// A signature of sigstore's.
    SigstoreSigned(Keys),
    /// Something that cannot be found out here.
    Unsupported(String),
}

/// Who must have signed, and as what.
#[derive(Clone, Debug)]
pub struct Keys {
    pub sources: Vec<KeySource>,
    pub identity: Identity,
}

/// Where a key is.
#[derive(Clone, Debug)]
pub enum KeySource {
    Path(PathBuf),
    Data(Vec<u8>),
}

impl Requirement {
    /// Who vouches for the image, if anybody must.
    ///
    /// # Errors
    /// If it does not meet this.
    pub fn check(&self, evidence: &Evidence<'_>) -> Result<Option<Voucher>> {
        match self {
            Self::AcceptAnything => Ok(None),
            Self::Reject => bail!("it rejects all images from there"),
            Self::Unsupported(what) => bail!("it requires {what}, which is not supported"),
            Self::SignedBy(keys) => signed_by(keys, evidence)
                .context("it requires an OpenPGP signature")
                .map(Some),
            Self::SigstoreSigned(keys) => sigstore_signed(keys, evidence)
                .context("it requires a signature of sigstore's")
                .map(Some),
        }
    }
}

impl Keys {
    /// The keys in all sources, each read by `parse`.
    fn read<K>(&self, parse: impl Fn(&[u8]) -> Result<Vec<K>>) -> Result<Vec<K>> {
        let mut keys = Vec::new();
        for source in &self.sources {
            let read = source.read().and_then(|bytes| parse(&bytes));
            keys.extend(read.with_context(|| source.shown())?);
        }
        Ok(keys)
    }
}

fn signed_by(keys: &Keys, evidence: &Evidence<'_>) -> Result<Voucher> {
    let trusted = keys.read(Certificate::read_all)?;
    first_good(evidence.simple, |signature| {
        let (payload, signer) = message::open(&trusted, signature, evidence.now)?;
        check_claim(&Claim::parse(&payload, SIMPLE)?, keys, evidence)?;
        Ok(signer.into())
    })
}

fn sigstore_signed(keys: &Keys, evidence: &Evidence<'_>) -> Result<Voucher> {
    let trusted = keys.read(|pem| Ok(vec![Key::parse(pem)?]))?;
    first_good(evidence.sigstore, |attachment| {
        let key = sigstore::by_whom(&trusted, attachment)?;
        check_claim(
            &Claim::parse(&attachment.payload, SIGSTORE)?,
            keys,
            evidence,
        )?;
        Ok(Voucher {
            key: format!("sigstore key {}", key.fingerprint()),
            users: Vec::new(),
        })
    })
}

fn check_claim(claim: &Claim, keys: &Keys, evidence: &Evidence<'_>) -> Result<()> {
    keys.identity.check(&claim.name, evidence.name)?;
    claim.check_manifest(evidence.manifest)
}

/// The first signature that counts; else why none does.
fn first_good<S>(signatures: &[S], check: impl Fn(&S) -> Result<Voucher>) -> Result<Voucher> {
    ensure!(!signatures.is_empty(), "the image has none");
    let mut reasons = Vec::new();
    for signature in signatures {
        match check(signature) {
            Ok(voucher) => return Ok(voucher),
            Err(error) => reasons.push(format!("{error:#}")),
        }
    }
    let more = match reasons.len().saturating_sub(MAX_REASONS) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    reasons.truncate(MAX_REASONS);
    bail!(
        "none of its {} counts: {}{more}",
        signatures.len(),
        reasons.join("; ")
    )
}

impl KeySource {
    fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Path(path) => bounded::read(File::open(path)?, MAX_KEY_BYTES),
            Self::Data(bytes) => Ok(bytes.clone()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Path(path) => format!("read the policy's key {}", path.display()),
            Self::Data(_) => "read the key in the policy".to_owned(),
        }
    }
}
