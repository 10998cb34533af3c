//! A kept host stays as long as it is needed, and goes when it is not. Needs QEMU; fails without it.

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// After how many seconds without a command the host goes.
const IDLE_SECONDS: u64 = 5;

/// When it must have gone at the latest.
const DEADLINE: Duration = Duration::from_secs(60);

/// The output of `script` on the host of the runtime folder `place`, where nothing else is said.
fn run(place: &Path, script: &str) -> Result<String> {
    let output = common::on_kvm()
        .env("FAIRING_KVM_IDLE_SECONDS", IDLE_SECONDS.to_string())
        .env("XDG_RUNTIME_DIR", place)
        .args(["--keep", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .context("run on-kvm")?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn host_kept_outlives_a_long_command_and_goes_when_idle() -> Result<()> {
    let place = tempfile::tempdir()?;
    let boot = "cat /proc/sys/kernel/random/boot_id";
    let first = run(place.path(), &format!("{boot}; sleep {}", 2 * IDLE_SECONDS))?;
    ensure!(
        run(place.path(), boot)? == first,
        "the host went as if it had been idle during the command"
    );
    let hosts = || -> Result<usize> {
        let user = place
            .path()
            .join(format!("fairing-kvm-{}", nix::unistd::geteuid()));
        Ok(fs::read_dir(user)?.count())
    };
    let begin = Instant::now();
    while hosts()? > 0 {
        ensure!(begin.elapsed() < DEADLINE, "the host is still there");
        thread::park_timeout(Duration::from_millis(100));
    }
    Ok(())
}
