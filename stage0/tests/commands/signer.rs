//! Keys and signatures by GnuPG, for tests of images that are signed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A GnuPG home with one key.
pub struct Signer(TempDir);

impl Signer {
    /// Its path is short: the socket of GnuPG's agent lies in it.
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("g").tempdir_in("/tmp");
        let signer = Self(home.expect("a folder"));
        signer.run(
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
        let path = self.0.path().join("key.asc");
        std::fs::write(&path, self.public()).expect("a file");
        path
    }

    /// The public key.
    pub fn public(&self) -> Vec<u8> {
        self.run(&["--armor", "--export"], b"")
    }

    /// A detached signature.
    pub fn sign(&self, content: &[u8]) -> Vec<u8> {
        self.run(&["--armor", "--detach-sign", "--output", "-", "-"], content)
    }

    fn run(&self, words: &[&str], input: &[u8]) -> Vec<u8> {
        let file = self.0.path().join("input");
        std::fs::write(&file, input).expect("a file");
        let output = Command::new("gpg")
            .arg("--homedir")
            .arg(self.0.path())
            .args([
                "--batch",
                "--quiet",
                "--yes",
                "--no-tty",
                "--pinentry-mode=loopback",
                "--passphrase=",
            ])
            .args(words)
            .stdin(Stdio::from(std::fs::File::open(&file).expect("a file")))
            .output()
            .expect("gpg starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg {words:?}: {said}");
        output.stdout
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // The agent ends by itself when its home is gone; asked, it ends at once.
        let mut ask = Command::new("gpgconf");
        let _ = ask
            .arg("--homedir")
            .arg(self.0.path())
            .args(["--kill", "all"])
            .status();
    }
}
