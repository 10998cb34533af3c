//! scripts/on-kvm as its callers see it, on one kept emulated host: exit codes, streams, signals, a killed client.
//! Needs QEMU; fails without it.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DEADLINE: Duration = Duration::from_secs(60);

fn on_kvm(arguments: &[&str]) -> Command {
    let mut command = common::on_kvm();
    command.args(["--keep", "--"]).args(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn shell(script: &str) -> Result<Output> {
    on_kvm(&["sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .context("run on-kvm")
}

/// Starts a script that first prints a line, and returns once the line has come.
fn start(script: &str) -> Result<(Child, String)> {
    let mut child = on_kvm(&["sh", "-c", script])
        .spawn()
        .context("start on-kvm")?;
    let mut line = String::new();
    let stdout = child.stdout.as_mut().context("standard output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((child, line.trim_end().to_string()))
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(child.id())?), signal).context("signal the client")
}

#[test]
fn command_that_exits_passes_its_code_on() -> Result<()> {
    for code in [0, 1, 42, 126, 127, 137, 255] {
        let output = shell(&format!("exit {code}"))?;
        ensure!(output.status.code() == Some(code), "{code}: {output:?}");
    }
    Ok(())
}

#[test]
fn command_not_found_or_not_executable_has_the_shell_s_code() -> Result<()> {
    for (name, code) in [("no-such-command", 127), ("/etc/passwd", 126)] {
        let output = on_kvm(&[name]).output()?;
        ensure!(
            output.status.code() == Some(code) && !output.stderr.is_empty(),
            "{output:?}"
        );
    }
    Ok(())
}

#[test]
fn output_and_error_arrive_apart_and_whole() -> Result<()> {
    let output = shell("seq 20000; seq 20000 >&2")?;
    let expected: String = (1..=20000).map(|number| format!("{number}\n")).collect();
    ensure!(output.stdout == expected.as_bytes() && output.stderr == expected.as_bytes());
    Ok(())
}

#[test]
fn input_of_any_bytes_comes_back_unchanged() -> Result<()> {
    let bytes: Vec<u8> = (0..1_000_003_u32)
        .map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let mut child = on_kvm(&["cat"]).spawn()?;
    let mut stdin = child.stdin.take().context("standard input")?;
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output()?;
    ensure!(writer.join().is_ok_and(|written| written.is_ok()) && output.stdout == bytes);
    Ok(())
}

#[test]
fn signal_reaches_the_command() -> Result<()> {
    let (mut child, _) = start("trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done")?;
    signal(&child, Signal::SIGTERM)?;
    ensure!(child.wait()?.code() == Some(5));
    let (mut child, _) = start("echo up; exec sleep 1000")?;
    signal(&child, Signal::SIGINT)?;
    ensure!(child.wait()?.code() == Some(130));
    Ok(())
}

#[test]
fn client_killed_takes_its_command_with_it() -> Result<()> {
    let (mut child, pid) = start("echo $$; exec sleep 1000")?;
    signal(&child, Signal::SIGKILL)?;
    ensure!(child.wait()?.signal() == Some(9));
    let start = Instant::now();
    while shell(&format!("test -e /proc/{pid}"))?.status.success() {
        ensure!(start.elapsed() < DEADLINE, "the command still runs");
    }
    Ok(())
}

#[test]
fn file_of_the_checkout_is_shared_and_another_is_not() -> Result<()> {
    let shared = tempfile::tempdir()?;
    let inside = shared.path().join("file");
    let output = shell(&format!(
        "echo here >{} && echo gone >/etc/on-kvm-test",
        inside.display()
    ))?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(
        std::fs::read_to_string(inside)? == "here\n" && !Path::new("/etc/on-kvm-test").exists()
    );
    Ok(())
}

#[test]
fn host_has_kvm_and_the_devices_around_it() -> Result<()> {
    let output = shell(
        "set -e; for node in kvm vhost-vsock net/tun loop-control fuse ptmx; do test -c /dev/$node; done
        modprobe br_netfilter; modprobe ext4; modprobe erofs; grep -q memory /sys/fs/cgroup/cgroup.subtree_control
        test -d /sys/module/kvm_amd",
    )?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}
