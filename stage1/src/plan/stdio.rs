//! Where an app's stdio goes, and by which ports: part of [`plan`](super).

use std::ops::Range;

use anyhow::{Result, ensure};
use contract::RunArguments;
use contract::annotation::{self, APP_STDERR, APP_STDIN, APP_STDOUT, Annotation};
use guest_init::protocol::{self, FIRST_STREAM_PORT, Stdio, TaskId, Window};

/// Stream ports of one task: stdin, stdout, stderr, and one spare.
const PORTS_PER_TASK: u32 = 4;

/// The stream ports of a task.
pub fn ports(task: TaskId) -> Range<u32> {
    let first = FIRST_STREAM_PORT.saturating_add(task.saturating_mul(PORTS_PER_TASK));
    first..first.saturating_add(PORTS_PER_TASK)
}

/// The ports that `stdio` names, in the order stdin, stdout, stderr.
pub fn ports_of(mut stdio: Stdio) -> Vec<u32> {
    ports_in(&mut stdio).into_iter().map(|port| *port).collect()
}

fn ports_in(stdio: &mut Stdio) -> Vec<&mut u32> {
    match stdio {
        Stdio::Terminal { port, .. } => vec![port],
        Stdio::Streams {
            stdin,
            stdout,
            stderr,
        } => [stdin, stdout, stderr].into_iter().flatten().collect(),
    }
}

/// Those of stdin, stdout and stderr that are wanted, from port `first` on.
pub fn streams(first: u32, wanted: [bool; 3]) -> Stdio {
    let port = |offset: u32, wanted: bool| wanted.then_some(first + offset);
    Stdio::Streams {
        stdin: port(0, wanted[0]),
        stdout: port(1, wanted[1]),
        stderr: port(2, wanted[2]),
    }
}

/// `stdio`, which is some task's, as that of `task`.
pub fn moved(mut stdio: Stdio, task: TaskId) -> Stdio {
    let first = ports(task).start;
    for port in ports_in(&mut stdio) {
        *port = first + port.wrapping_sub(FIRST_STREAM_PORT) % PORTS_PER_TASK;
    }
    stdio
}

/// There is one input and one terminal.
pub(super) fn check_input(apps: &[protocol::App]) -> Result<()> {
    let reads = |app: &&protocol::App| !matches!(app.stdio, Stdio::Streams { stdin: None, .. });
    let readers: Vec<_> = apps.iter().filter(reads).map(|app| &*app.name).collect();
    ensure!(
        readers.len() <= 1,
        "the apps {} cannot all read this command's input: give -i or -t to one of them",
        readers.join(", ")
    );
    let on_terminal = |app: &protocol::App| matches!(app.stdio, Stdio::Terminal { .. });
    ensure!(
        apps.len() == 1 || !apps.iter().any(on_terminal),
        "a terminal is for a pod of one app: -t and --interactive are not for several"
    );
    Ok(())
}

/// Where stdio goes by the app's annotations; without one, streams and no stdin, as for any service.
pub(super) fn stdio(
    index: usize,
    annotations: &[Annotation],
    arguments: &RunArguments,
    window: Option<Window>,
) -> Result<Stdio> {
    let first = ports(u32::try_from(index)?).start;
    let modes = [APP_STDIN, APP_STDOUT, APP_STDERR].map(|name| annotation::find(annotations, name));
    let mut asked = modes.iter().flatten();
    let on_terminal = asked.any(|mode| matches!(*mode, "tty" | "interactive"));
    // Without a terminal of the user's there is nobody to end the app's input by a key: then streams serve it better.
    if let Some(window) = window.filter(|_| on_terminal || arguments.interactive) {
        return Ok(Stdio::Terminal {
            port: first,
            window,
        });
    }
    for mode in modes.iter().flatten() {
        ensure!(
            matches!(*mode, "stream" | "null" | "log" | "tty" | "interactive"),
            "unknown stdio mode {mode:?}"
        );
    }
    let stdin = matches!(modes[0], Some("stream" | "tty" | "interactive")) || arguments.interactive;
    let is_kept = |mode: Option<&str>| mode != Some("null");
    Ok(streams(
        first,
        [stdin, is_kept(modes[1]), is_kept(modes[2])],
    ))
}
