//! An ordinary user of the host, with a home that has what he runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{checkout, configure, finish, proved, temporary, test_image};

/// A user whom nothing on the host belongs to.
pub const USER: &str = "54321";

/// The group that may use /dev/kvm.
pub fn kvm_group() -> String {
    let device = fs::metadata("/dev/kvm").expect("the host has KVM");
    device.gid().to_string()
}

/// A home of that user, with what he runs.
pub struct Home(tempfile::TempDir);

impl Home {
    /// One with these images.
    #[track_caller]
    pub fn new(images: &[&str]) -> Self {
        // A place that he can reach, wherever the checkout is.
        let home = temporary("fairing-rootless-");
        let programs = ["fairing", "stage1-kvm"].map(|name| checkout().join("target").join(name));
        let images = images.iter().map(|name| test_image(name));
        let mut copy = Command::new("cp");
        copy.arg("-r").args(programs).args(images).arg(home.path());
        finish(&mut copy).expect_code(0);
        configure(&home.path().join("etc"));
        Self::give(home.path());
        Self(home)
    }

    /// Gives him what is at `path`, with all that is in it.
    #[track_caller]
    pub fn give(path: &Path) {
        let owner = format!("{USER}:{USER}");
        finish(Command::new("chown").args(["-R", &owner]).arg(path)).expect_code(0);
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `fairing` as that user, in `group`.
    pub fn fairing(&self, group: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", USER, "--regid", USER, "--groups", group, "--"])
            .arg(self.path("fairing"))
            .stdin(Stdio::null())
            .env("HOME", self.0.path())
            .arg("--dir")
            .arg(self.path("store"))
            .arg("--system-config")
            .arg(self.path("etc"));
        command
    }

    /// `fairing run OPTIONS` of the image `odd` with `script`.
    pub fn run(&self, group: &str, options: &[&str], script: &str) -> Command {
        let mut command = self.fairing(group);
        command
            .args(["run", "-i", "--name=odd"])
            .args(options)
            .arg("--stage1")
            .arg(self.path("stage1-kvm"));
        command
            .arg(self.path("odd"))
            .args(["--", "/bin/sh", "-c", &proved(script)]);
        command
    }
}
