//! A second stage 1, after rkt's "fly": changes root into the app's directory and becomes the app. One program that is told apart
//! by its name, as ours. It knows of the contract what stands on the contract's page, and has no code of fairing's in it.

use std::fs;
use std::os::unix::fs::chroot;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, exit};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn main() {
    let argv: Vec<_> = std::env::args().collect();
    let (program, arguments) = argv.split_first().expect("a name to be called by");
    let did = match Path::new(program)
        .file_name()
        .and_then(|name| name.to_str())
    {
        Some("run") => run(),
        Some("enter") => enter(arguments),
        Some("stop") => stop(arguments),
        Some("gc") => {
            eprintln!("fly: gc {}", arguments.join(" "));
            Ok(())
        }
        _ => Err(anyhow::anyhow!("there is no entrypoint {program}")),
    };
    if let Err(error) = did {
        eprintln!("fly: {error:#}");
        exit(254);
    }
}

/// Becomes the only app of the pod in the working directory.
fn run() -> Result<()> {
    let pod = read("pod")?;
    let [app] = pod["apps"].as_array().context("a list of apps")?.as_slice() else {
        bail!("it takes pods of one app");
    };
    let place = format!(
        "stage1/rootfs/opt/stage2/{}",
        app["name"].as_str().context("a name")?
    );
    let image = read(&format!("{place}/manifest"))?;
    let program = app.get("app").unwrap_or(&image["app"]);
    let words = program["exec"].as_array().into_iter().flatten();
    let words: Vec<_> = words.filter_map(Value::as_str).collect();
    let variables = program["environment"].as_array().into_iter().flatten();
    let variables = variables
        .filter_map(|variable| Some((variable["name"].as_str()?, variable["value"].as_str()?)));
    fs::write("pid", format!("{}\n", std::process::id())).context("write pid")?;
    chroot(format!("{place}/rootfs")).context("change root")?;
    become_program(
        &words,
        Command::new(words.first().context("a command")?).envs(variables),
    )
}

/// Becomes a command in the root of the pod's process.
fn enter(arguments: &[String]) -> Result<()> {
    let pid = arguments
        .iter()
        .find_map(|word| word.strip_prefix("--pid="));
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut parts = words.splitn(2, |word| *word == "--");
    let command = parts.nth(1).context("no -- before the command")?;
    chroot(format!("/proc/{}/root", pid.context("no --pid")?)).context("change root")?;
    become_program(
        command,
        &mut Command::new(command.first().context("a command")?),
    )
}

fn become_program(words: &[&str], command: &mut Command) -> Result<()> {
    command.args(&words[1..]).current_dir("/");
    let error = command.env("container", "fly").exec();
    Err(error).with_context(|| format!("execute {}", words[0]))
}

fn stop(arguments: &[String]) -> Result<()> {
    let signal = match arguments.iter().any(|word| word == "--force") {
        true => Signal::SIGKILL,
        false => Signal::SIGTERM,
    };
    let pid = fs::read_to_string("pid").context("read pid")?;
    kill(Pid::from_raw(pid.trim().parse()?), signal).context("signal the app")
}

fn read(path: &str) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("read {path}"))?;
    Ok(serde_json::from_slice(&text)?)
}
