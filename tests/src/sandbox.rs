//! A pod that takes apps while it runs, driven by `fairing app`.

use std::fs;
use std::path::PathBuf;

use crate::{Finished, fairing, finish, proved, store, test_image, wait_until};

/// A pod that runs in the background and has no app of its own.
pub struct Sandbox {
    uuid: String,
}

impl Sandbox {
    /// Starts it.
    #[track_caller]
    pub fn start(options: &[&str]) -> Self {
        let mut command = fairing();
        command.args(["app", "sandbox", "-d"]).args(options);
        let uuid = finish(&mut command).expect_code(0).out();
        Self {
            uuid: uuid.trim().to_owned(),
        }
    }

    /// `fairing app DEED UUID ARGUMENTS`.
    pub fn app(&self, deed: &str, arguments: &[&str]) -> Finished {
        let mut command = fairing();
        command.args(["app", deed, &self.uuid]).args(arguments);
        finish(&mut command)
    }

    /// Adds an app of busybox whose shell does this, once it has proved that it runs in a machine.
    pub fn add(&self, name: &str, flags: &[&str], script: &str) -> Finished {
        self.add_of("busybox", name, flags, script)
    }

    /// The same of another image.
    pub fn add_of(&self, image: &str, name: &str, flags: &[&str], script: &str) -> Finished {
        let mut command = fairing();
        command.args(["app", "add", &self.uuid]);
        command.arg(test_image(image)).arg(format!("--name={name}"));
        command.args(flags).arg("--exec=/bin/sh");
        finish(command.args(["--", "-c", &proved(script)]))
    }

    /// `fairing app DEED` of an app, which succeeds.
    #[track_caller]
    pub fn does(&self, deed: &str, name: &str) {
        self.app(deed, &[&format!("--app={name}")]).expect_code(0);
    }

    /// The same, which is refused for this reason.
    #[track_caller]
    pub fn is_refused(&self, deed: &str, name: &str, why: &str) {
        let refused = self.app(deed, &[&format!("--app={name}")]).expect_code(254);
        assert!(refused.err().contains(why), "{}", refused.err());
    }

    /// Starts an app that was added and ends by itself, and gives what it has written since it was added.
    #[track_caller]
    pub fn runs(&self, name: &str) -> String {
        self.does("start", name);
        self.wait_for(name, "exited");
        self.logs(name)
    }

    /// What `app list` says of an app.
    pub fn state(&self, name: &str) -> String {
        let list = self.app("list", &["--no-legend"]).expect_code(0).out();
        let words = list.lines().map(|line| line.split_whitespace());
        let mut states =
            words.filter_map(|mut words| (words.next()? == name).then(|| words.next()));
        states.next().flatten().unwrap_or("none").to_owned()
    }

    /// Waits until `app list` says so.
    pub fn wait_for(&self, name: &str, state: &str) {
        wait_until(state, || self.state(name) == state);
    }

    /// What an app has written to stdout, by `fairing logs`.
    pub fn logs(&self, name: &str) -> String {
        let mut command = fairing();
        finish(command.args(["logs", "--app", name, &self.uuid]))
            .expect_code(0)
            .out()
    }

    /// Its UUID.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Its directory.
    pub fn directory(&self) -> PathBuf {
        store().join("pods/run").join(&self.uuid)
    }

    /// What is mounted in the root of the pod's process.
    pub fn shares(&self) -> Vec<String> {
        let pid = fs::read_to_string(self.directory().join("pid")).expect("the pid");
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", pid.trim()));
        let table = table.expect("the process's mounts");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        points
            .filter(|point| *point != "/")
            .map(str::to_owned)
            .collect()
    }

    /// Stops and removes it.
    #[track_caller]
    pub fn end(self) {
        for command in ["stop", "rm"] {
            finish(fairing().args([command, &self.uuid])).expect_code(0);
        }
    }
}
