//! One trusted key as its owner publishes it: primary key, subkeys, and the signatures that bind them, of which each is
//! verified before it counts.
//!
//! The crate `pgp` reads packets and checks single signatures; what they mean together is decided here. RFC 9580,
//! sections 5.2.3 and 10.1.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use pgp::composed::{ArmorOptions, Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, Tag};

use crate::signature::is_weak;

/// Bytes of a file of keys.
pub const MAX_KEY_BYTES: u64 = 1 << 20;
/// Keys taken of one file.
const MAX_KEYS: usize = 64;

/// How an armored key begins.
const ARMOR: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// A key with all that belongs to it.
#[derive(Clone, Debug)]
pub struct Certificate(SignedPublicKey);

/// A key of a certificate that may have made a signature.
pub enum Component<'a> {
    /// The certificate's own.
    Primary,
    /// One of those it has bound to itself.
    Subkey(&'a SignedPublicSubKey),
}

impl Certificate {
    /// Reads the keys in `bytes`, armored or not.
    ///
    /// # Errors
    /// If there is none, too many, or one cannot be read.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>> {
        ensure!(
            bytes.len() as u64 <= MAX_KEY_BYTES,
            "more than {MAX_KEY_BYTES} bytes are no public key"
        );
        let mut found = Vec::new();
        for block in blocks(bytes) {
            let (keys, _) =
                SignedPublicKey::from_reader_many(block).context("not an OpenPGP public key")?;
            for key in keys {
                ensure!(
                    found.len() < MAX_KEYS,
                    "more than {MAX_KEYS} keys in one file"
                );
                found.push(Self(key.context("a damaged OpenPGP public key")?));
            }
        }
        if found.is_empty() {
            bail!("no OpenPGP public key in it");
        }
        Ok(found)
    }

    /// The primary key's fingerprint, in lower case: the name of its file.
    pub fn fingerprint(&self) -> String {
        format!("{:x}", self.0.fingerprint())
    }

    /// Who the owner says to be; control characters are not passed on.
    pub fn users(&self) -> Vec<String> {
        let told = self.0.details.users.iter().map(|user| {
            let id = String::from_utf8_lossy(user.id.id());
            id.chars().filter(|letter| !letter.is_control()).collect()
        });
        told.collect()
    }

    /// The key as text.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn armored(&self) -> Result<Vec<u8>> {
        let options = ArmorOptions::default();
        self.0.to_armored_bytes(options).context("write the key")
    }

    /// The keys that `signature` may be by, as it says itself.
    pub(crate) fn components<'a>(
        &'a self,
        signature: &'a Signature,
    ) -> impl Iterator<Item = Component<'a>> {
        let primary = is_by(signature, &self.0).then_some(Component::Primary);
        let subkeys = self.0.public_subkeys.iter();
        let subkeys = subkeys.filter(|subkey| is_by(signature, *subkey));
        primary.into_iter().chain(subkeys.map(Component::Subkey))
    }

    /// Refuses a component that may not sign at `now`.
    pub(crate) fn check(&self, component: &Component<'_>, now: SystemTime) -> Result<()> {
        let revoked = self.0.details.revocation_signatures.iter();
        if revoked
            .into_iter()
            .any(|by| by.verify_key(&self.0.primary_key).is_ok())
        {
            bail!("it was made by {self}, which has been revoked");
        }
        let own = self
            .own_signature()
            .with_context(|| format!("{self} is not signed by itself"))?;
        self.check_expiry(own, &self.0, now)?;
        match component {
            Component::Primary if may_sign(own) => Ok(()),
            Component::Primary => bail!("{self} may not sign files, by its own word"),
            Component::Subkey(subkey) => self.check_subkey(subkey, now),
        }
    }

    /// Verifies `signature` with a component.
    pub(crate) fn verify(
        &self,
        component: &Component<'_>,
        signature: &Signature,
        content: impl std::io::Read,
    ) -> Result<()> {
        match component {
            Component::Primary => signature.verify(&self.0.primary_key, content),
            Component::Subkey(subkey) => signature.verify(&subkey.key, content),
        }
        .with_context(|| format!("it claims to be by {self}, but does not fit the file"))
    }

    fn check_subkey(&self, subkey: &SignedPublicSubKey, now: SystemTime) -> Result<()> {
        let primary = &self.0.primary_key;
        let fits = |signature: &&Signature| {
            !is_weak_binding(signature)
                && signature
                    .verify_subkey_binding(primary, &subkey.key)
                    .is_ok()
        };
        let of_type = |kind| {
            let signatures = subkey.signatures.iter();
            signatures.filter(move |signature| signature.typ() == Some(kind))
        };
        if of_type(SignatureType::SubkeyRevocation).any(|signature| fits(&signature)) {
            bail!("it was made by a subkey of {self} that has been revoked");
        }
        let binding = of_type(SignatureType::SubkeyBinding)
            .filter(fits)
            .max_by_key(|signature| signature.created())
            .with_context(|| format!("it was made by a subkey that {self} has not signed"))?;
        // Without the subkey's word for it, anybody could bind somebody else's to his own key.
        let agrees = binding.embedded_signature().is_some_and(|back| {
            back.verify_primary_key_binding(&subkey.key, primary)
                .is_ok()
        });
        ensure!(
            binding.key_flags().sign() && agrees,
            "it was made by a subkey of {self} that may not sign"
        );
        self.check_expiry(binding, subkey, now)
    }

    /// The newest signature by which the primary key says what holds for it.
    fn own_signature(&self) -> Option<&Signature> {
        let key = &self.0.primary_key;
        let direct = self.0.details.direct_signatures.iter();
        let direct = direct.filter(|signature| signature.verify_key(key).is_ok());
        let of_users = self.0.details.users.iter().flat_map(|user| {
            let certifies = |signature: &&Signature| {
                signature.typ() != Some(SignatureType::CertRevocation)
                    && signature
                        .verify_certification(key, Tag::UserId, &user.id)
                        .is_ok()
            };
            user.signatures.iter().filter(certifies)
        });
        direct
            .chain(of_users)
            .filter(|signature| !is_weak_binding(signature))
            .max_by_key(|signature| signature.created())
    }

    fn check_expiry(
        &self,
        binding: &Signature,
        key: &impl KeyDetails,
        now: SystemTime,
    ) -> Result<()> {
        let Some(lasts) = binding
            .key_expiration_time()
            .filter(|lasts| lasts.as_secs() > 0)
        else {
            return Ok(());
        };
        let lasts = Duration::from_secs(lasts.as_secs().into());
        let made = Duration::from_secs(key.created_at().as_secs().into());
        ensure!(
            now < UNIX_EPOCH + made + lasts,
            "it was made by a key of {self} that has expired"
        );
        Ok(())
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.fingerprint())
    }
}

/// The armored blocks in `bytes`, or else all of it: keyrings are often made by putting files one behind the other.
fn blocks(bytes: &[u8]) -> Vec<&[u8]> {
    let starts = bytes.windows(ARMOR.len()).enumerate();
    let starts: Vec<_> = starts
        .filter_map(|(at, window)| (window == ARMOR).then_some(at))
        .collect();
    if starts.is_empty() {
        return vec![bytes];
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let blocks = starts.iter().zip(ends);
    blocks.map(|(start, end)| &bytes[*start..end]).collect()
}

fn is_by(signature: &Signature, key: &impl KeyDetails) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    if fingerprints.is_empty() {
        return signature.issuer_key_id().contains(&&key.legacy_key_id());
    }
    fingerprints.contains(&&key.fingerprint())
}

/// Without a word on it, a primary key may do anything.
fn may_sign(own: &Signature) -> bool {
    let says = own.config().is_some_and(|config| {
        let mut parts = config.hashed_subpackets();
        parts.any(|part| matches!(part.data, SubpacketData::KeyFlags(_)))
    });
    !says || own.key_flags().sign()
}

/// Keys of rkt's days have bindings by SHA-1, which `pgp` checks for the known kind of collision.
fn is_weak_binding(signature: &Signature) -> bool {
    use pgp::crypto::hash::HashAlgorithm::Sha1;
    signature
        .hash_alg()
        .is_none_or(|hash| hash != Sha1 && is_weak(hash))
}
