//! Keys and signatures by GnuPG, for tests of images that are signed.

use std::path::PathBuf;

#[path = "../../trust/tests/gnupg/mod.rs"]
mod gnupg;

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
