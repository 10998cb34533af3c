//! Emulated hosts that die or hang under their clients: reported in time, and a command is never run twice. Needs QEMU;
//! fails without it.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The exit code of on-kvm for a failure of its own.
const HOST_FAILED: i32 = 253;
/// More than the silence after which a host counts as dead, and its end.
const DEADLINE: Duration = Duration::from_secs(60);

/// Starts a host of its own for `script`.
fn start(script: &str) -> Result<Child> {
    common::on_kvm()
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start on-kvm")
}

/// The QEMU process of `client`'s host, as soon as there is one.
fn qemu(client: &Child) -> Result<Pid> {
    let folder = format!("once-{}/", client.id());
    let begin = Instant::now();
    while begin.elapsed() < DEADLINE {
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            if line.contains("qemu-system") && line.contains(&folder) {
                let pid = path.file_name().and_then(|name| name.to_str());
                return Ok(Pid::from_raw(pid.context("a pid")?.parse()?));
            }
        }
        thread::park_timeout(Duration::from_millis(20));
    }
    bail!("no QEMU for {folder}");
}

/// A client whose script has said that it is up.
fn start_and_wait(script: &str) -> Result<Child> {
    let mut child = start(script)?;
    let stdout = child.stdout.as_mut().context("standard output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line == "up\n", "{line:?}");
    Ok(child)
}

/// The client's end, and whether its host's folder is gone with it.
fn finish(client: Child) -> Result<Output> {
    let pid = client.id();
    let begin = Instant::now();
    let output = client.wait_with_output()?;
    ensure!(
        begin.elapsed() < DEADLINE,
        "only after {:?}",
        begin.elapsed()
    );
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| Path::new(path).is_dir());
    let folder = Path::new(runtime.as_deref().unwrap_or("/tmp".as_ref()))
        .join(format!("fairing-kvm-{}", nix::unistd::geteuid()))
        .join(format!("once-{pid}"));
    ensure!(!folder.exists(), "{} is left", folder.display());
    Ok(output)
}

fn lost_after(signal: Signal) -> Result<()> {
    let runs = tempfile::NamedTempFile::new()?;
    let script = format!(
        "echo run >>{}; echo up; exec sleep 1000",
        runs.path().display()
    );
    let client = start_and_wait(&script)?;
    kill(qemu(&client)?, signal)?;
    let output = finish(client)?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(HOST_FAILED) && words.contains("the emulated host failed"),
        "{output:?}"
    );
    ensure!(fs::read_to_string(runs.path())? == "run\n", "run twice");
    Ok(())
}

#[test]
fn host_that_dies_under_its_command_is_reported_and_nothing_repeated() -> Result<()> {
    lost_after(Signal::SIGKILL)
}

#[test]
fn host_that_hangs_under_its_command_is_noticed_by_its_silence() -> Result<()> {
    lost_after(Signal::SIGSTOP)
}

#[test]
fn host_that_dies_before_its_command_started_is_tried_once_more() -> Result<()> {
    let client = start("echo up; exit 7")?;
    kill(qemu(&client)?, Signal::SIGKILL)?;
    let output = finish(client)?;
    ensure!(
        output.status.code() == Some(7) && output.stdout == b"up\n",
        "{output:?}"
    );
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(words.contains("trying once more"), "{words}");
    Ok(())
}
