//! A pod that runs in the background while a test asks something of it.

use std::fs;
use std::process::Command;

use crate::running::Running;
use crate::{Finished, fairing, finish, proved, run_sh, temporary};

/// A pod whose app has said that it runs.
pub struct Pod {
    run: Running,
    uuid: String,
}

impl Pod {
    /// Starts a pod whose app runs `script`, which says `ready` and goes on until it is told to end.
    #[track_caller]
    pub fn start(options: &[&str], script: &str) -> Self {
        let folder = temporary("fairing-pod-");
        let file = folder.path().join("uuid");
        let save = format!("--uuid-file-save={}", file.display());
        let options: Vec<_> = ["--rm", &save].iter().chain(options).copied().collect();
        let mut run = Running::start(&mut run_sh(&options, script));
        assert_eq!(run.line(), "ready");
        let uuid = fs::read_to_string(&file).expect("the pod's UUID");
        let uuid = uuid.trim().to_owned();
        // Stage 0 asks for the pid that stage 1 has written, and the app speaks before the host has heard that it runs.
        let mut status = fairing();
        status.args(["status", "--wait-ready", &uuid]);
        finish(&mut status).expect_code(0);
        Self { run, uuid }
    }

    /// `fairing enter` of a shell that proves first that it runs in a machine.
    pub fn enter(&self, script: &str) -> Command {
        self.enter_program(&["/bin/sh", "-c", &proved(script)])
    }

    /// `fairing enter` of `command`.
    pub fn enter_program(&self, command: &[&str]) -> Command {
        let mut enter = fairing();
        enter.args(["enter", &self.uuid]).args(command);
        enter
    }

    /// The pod's UUID.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Tells the pod to end, and waits for that.
    #[track_caller]
    pub fn end(self) -> Finished {
        self.run.signal("TERM");
        self.run.finish()
    }
}
