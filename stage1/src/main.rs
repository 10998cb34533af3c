//! stage1-kvm's entrypoints: one program, told apart by the name it is called by. Stage 0 finds the names in the
//! image's manifest; the working directory is the pod directory.

mod app;
mod assets;
mod attach;
mod cgroup;
mod clients;
mod control;
mod devices;
mod enter;
mod environment;
mod growth;
mod host;
mod isolators;
mod jail;
mod keys;
mod life;
mod limits;
mod log;
mod names;
mod network;
mod outcome;
mod plan;
mod probe;
mod report;
mod reserves;
mod run;
mod session;
mod sizes;
mod stop;
mod streams;
mod system_calls;
mod terminal;
mod timings;
mod unsupported;
mod visit;
mod visitors;
mod volumes;
mod waits;

use std::path::Path;

use anyhow::{Context, Error, Result, bail};
use contract::PodDir;

fn main() {
    use_one_arena();
    let mut argv = std::env::args();
    let name = argv.next().unwrap_or_default();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .init();
    match call(&name, argv) {
        Ok(code) => std::process::exit(code.into()),
        Err(error) => fail(&error),
    }
}

/// Keeps glibc from giving threads arenas of their own (mallopt(3)): few of them allocate much, each arena costs memory, and
/// to decide on the ninth glibc would look for the number of CPUs in /sys, which a jailed thread must not.
fn use_one_arena() {
    #[expect(
        unsafe_code,
        reason = "no safe binding of mallopt among the crates used"
    )]
    // SAFETY: called before there is another thread; the parameter is one that glibc knows.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

fn call(name: &str, argv: impl Iterator<Item = String>) -> Result<u8> {
    match Path::new(name).file_name().and_then(|name| name.to_str()) {
        Some("run") => run::run(argv),
        Some("stop") => stop::stop(argv),
        Some("gc") => gc(argv),
        Some("probe") => {
            probe::probe();
            Ok(0)
        }
        Some(name @ ("enter" | "serve")) => enter::enter(name == "serve", argv),
        Some("attach") => attach::attach(argv),
        Some(deed @ ("app_add" | "app_start" | "app_stop" | "app_rm")) => app::change(deed, argv),
        _ => bail!(
            "stage1-kvm is called by stage 0, as run, enter, serve, attach, stop, gc, app_… or probe; not as {name:?}"
        ),
    }
}

/// The `gc` entrypoint: takes the pod's networks down, removes its cgroup, and takes its files from its uid, the claim on which
/// is taken over by the next pod.
fn gc(argv: impl Iterator<Item = String>) -> Result<u8> {
    let uuid = argv.last().context("the pod's UUID is missing")?;
    let pod = PodDir::new("");
    // Whatever fails, the others are not to wait for it.
    let networks = network::tear_down(&pod, &uuid);
    let cgroup = cgroup::remove(&pod, &uuid);
    let files = report::take_over(&pod);
    networks.and(cgroup).and(files)?;
    Ok(0)
}

/// Prints one line for the user.
fn tell(text: &str) {
    eprintln!("fairing: {text}");
}

/// Ends the process with an error of our own.
fn fail(error: &Error) -> ! {
    tell(&format!("{error:#}"));
    std::process::exit(life::FAILED.into())
}
