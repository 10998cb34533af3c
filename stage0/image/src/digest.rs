//! Digests as OCI writes them, and readers that hash what passes through them.
//!
//! Called by the sources while they stream, on the thread of the import. OCI image-spec, "Digests".

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use anyhow::{Result, bail};
use sha2::{Digest as _, Sha256, Sha512};

/// The two algorithms that the specification registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `sha256`.
    Sha256,
    /// `sha512`.
    Sha512,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// An algorithm and a value, checked to be well formed: safe as a part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hash = Hash::new(algorithm);
        hash.update(bytes);
        hash.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The value, lower case.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Where an OCI layout keeps the blob.
    pub fn blob_path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Digest {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, hex) = text.split_once(':').unwrap_or(("", text));
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => bail!("digest {text:?} is neither sha256 nor sha512"),
        };
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != algorithm.hex_digits() || !hex.bytes().all(digit) {
            bail!(
                "digest {text:?} does not have {} lower-case hexadecimal digits",
                algorithm.hex_digits()
            );
        }
        Ok(Self {
            algorithm,
            hex: hex.to_owned(),
        })
    }
}

/// A digest in the making.
#[derive(Clone)]
pub enum Hash {
    /// Of `sha256`.
    Sha256(Sha256),
    /// Of `sha512`.
    Sha512(Sha512),
}

impl Hash {
    /// Of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Takes what comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all that came.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest {
                algorithm: Algorithm::Sha256,
                hex: hex::encode(hash.finalize()),
            },
            Self::Sha512(hash) => Digest {
                algorithm: Algorithm::Sha512,
                hex: hex::encode(hash.finalize()),
            },
        }
    }
}

/// Hashes every byte read through it.
pub struct Hashing<R> {
    inner: R,
    hash: Hash,
}

impl<R: Read> Hashing<R> {
    /// Reads from `inner`.
    pub fn new(inner: R, algorithm: Algorithm) -> Self {
        Self {
            inner,
            hash: Hash::new(algorithm),
        }
    }

    /// Reads what is left, and gives the digest of the whole.
    ///
    /// # Errors
    /// If the rest cannot be read.
    pub fn finish(self) -> io::Result<Digest> {
        self.finish_with().map(|(digest, _)| digest)
    }

    /// As [`finish`](Self::finish), with the reader below.
    ///
    /// # Errors
    /// If the rest cannot be read.
    pub fn finish_with(mut self) -> io::Result<(Digest, R)> {
        drain(&mut self)?;
        Ok((self.hash.finish(), self.inner))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Reads `reader` to its end and forgets the bytes.
fn drain(reader: &mut impl Read) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use hostile::{damage, faults};
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY);
        let hashing = Hashing::new(&b""[..], Algorithm::Sha256);
        assert_eq!(hashing.finish().unwrap().to_string(), EMPTY);
    }

    #[test]
    fn digest_that_could_climb_is_refused() {
        let upper = EMPTY.to_ascii_uppercase().replace("SHA256", "sha256");
        for text in ["", "sha256:", "sha256:../../etc/passwd", "md5:00", &upper] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        assert_eq!(EMPTY.parse::<Digest>().unwrap().to_string(), EMPTY);
    }

    proptest! {
        #[test]
        fn digest_of_any_text_is_refused_or_safe_as_a_path(
            text in "(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})", faults in faults(2)
        ) {
            let mut bytes = text.into_bytes();
            damage(&mut bytes, &faults);
            let text = String::from_utf8_lossy(&bytes);
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text.as_ref());
                prop_assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
                prop_assert_eq!(digest.blob_path().matches('/').count(), 2);
            } else {
                prop_assert!(!faults.is_empty());
            }
        }
    }
}
