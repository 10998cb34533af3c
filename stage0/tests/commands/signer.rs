//! Keys and signatures by GnuPG, for tests of images that are signed.

use std::path::PathBuf;

#[path = "../../trust/tests/gnupg/mod.rs"]
mod gnupg;

/// When the keys were good that have expired.
pub const LONG_AGO: &str = "20200101T000000";

/// A GnuPG home with one key.
pub struct Signer(gnupg::Home);

impl Signer {
    /// A fresh one.
    pub fn new() -> Self {
        let signer = Self(gnupg::Home::new());
        signer.0.run(
            &[
                "--quick-generate-key",
                "maker@example.com",
                "ed25519",
                "sign",
                "never",
            ],
            b"",
        );
        signer
    }

    /// One whose key has expired long ago, and signs as if that were now.
    pub fn expired() -> Self {
        let signer = Self(gnupg::Home::new());
        let key = ["late@example.com", "ed25519", "sign", "1d"];
        let words = [
            &["--faked-system-time", LONG_AGO, "--quick-generate-key"],
            &key[..],
        ];
        signer.0.run(&words.concat(), b"");
        signer
    }

    /// Its folder, as GnuPG's variable takes it.
    pub fn home(&self) -> PathBuf {
        self.0.path("")
    }

    /// The key's fingerprint, in capitals.
    pub fn fingerprint(&self) -> String {
        let listed = self.0.run(&["--with-colons", "--list-keys"], b"");
        let listed = String::from_utf8(listed).expect("text");
        let line = listed.lines().find(|line| line.starts_with("fpr:"));
        let field = line.and_then(|line| line.split(':').nth(9));
        field.expect("a fingerprint").to_owned()
    }

    /// A message that holds `content`, made with these words.
    pub fn message(&self, words: &[&str], content: &[u8]) -> Vec<u8> {
        self.0.run(&[words, &["--output", "-"]].concat(), content)
    }

    /// The public key, in a file.
    pub fn key(&self) -> PathBuf {
        let path = self.0.path("key.asc");
        std::fs::write(&path, self.public()).expect("a file");
        path
    }

    /// The public key.
    pub fn public(&self) -> Vec<u8> {
        self.0.run(&["--armor", "--export"], b"")
    }

    /// A detached signature.
    pub fn sign(&self, content: &[u8]) -> Vec<u8> {
        self.0
            .run(&["--armor", "--detach-sign", "--output", "-", "-"], content)
    }
}
