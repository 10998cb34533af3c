//! A GnuPG home for tests: its keys are nobody's, and it goes with its agent. Used by the tests of `trust` and of `fairing`.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The home.
pub struct Home(TempDir);

impl Home {
    /// One without keys. Its path is short: the socket of GnuPG's agent lies in it.
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("g").tempdir_in("/tmp");
        Self(home.expect("a folder"))
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What gpg says on stdout to these words, and to `input` on stdin.
    #[track_caller]
    pub fn run(&self, words: &[&str], input: &[u8]) -> Vec<u8> {
        let file = self.path("input");
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
            .stdin(Stdio::from(File::open(&file).expect("a file")))
            .output()
            .expect("gpg starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg {words:?}: {said}");
        output.stdout
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // The agent ends by itself when its home is gone; asked, it ends at once.
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.0.path())
            .args(["--kill", "all"])
            .status();
    }
}
