//! The `enter` entrypoint: runs a command inside an app of a running pod, on this process's stdio; its exit code is the
//! command's. The `serve` entrypoint does so with a program of the machine's own, never on a terminal. The working directory is the
//! pod directory.

use anyhow::{Context, Result, bail};
use contract::PodDir;
use guest_init::protocol::{Entry, FIRST_STREAM_PORT, Stdio};

use crate::clients::{Caller, Request};
use crate::visit::Visit;
use crate::{plan, terminal};

/// Runs the command that `argv` names: `--pid=PID --appname=NAME -- COMMAND ARGUMENT...`; rkt's own programs say `--app=NAME`.
///
/// # Errors
/// When the pod does not run, or the command cannot be launched for a reason of ours.
pub fn enter(built_in: bool, argv: impl Iterator<Item = String>) -> Result<u8> {
    let (app, exec) = parse(argv)?;
    let pod = Caller::come(&PodDir::new(".").socket())?;
    let window = terminal::window().filter(|_| !built_in);
    let port = FIRST_STREAM_PORT;
    let stdio = match window {
        Some(window) => Stdio::Terminal { port, window },
        None => plan::streams(port, [true; 3]),
    };
    let term = window.and_then(|_| std::env::var("TERM").ok());
    let request = Request::Enter(Box::new(Entry {
        app,
        built_in,
        exec,
        // As rkt's: whoever may enter a pod is its administrator.
        user: Some("root".into()),
        environment: term.map(|term| ("TERM".into(), term)).into_iter().collect(),
        working_directory: None,
        stdio,
    }));
    Visit::begin(pod, &request, stdio, window.is_some())?.follow()
}

fn parse(argv: impl Iterator<Item = String>) -> Result<(String, Vec<String>)> {
    let mut argv = argv;
    let mut app = None;
    for argument in argv.by_ref() {
        match argument.split_once('=') {
            _ if argument == "--" => break,
            Some(("--appname" | "--app", name)) => app = Some(name.to_owned()),
            // There is one process to ask, and it is found by its socket.
            Some(("--pid", _)) => {}
            _ => bail!("unknown argument {argument:?}"),
        }
    }
    let app = app.context(
        "no --appname: the machine itself has no programs to run; name an app of the pod",
    )?;
    let exec: Vec<_> = argv.collect();
    if exec.is_empty() {
        bail!("no command given after --");
    }
    Ok((app, exec))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(String, Vec<String>)> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn parse_both_spellings_and_leaves_the_commands_own_flags_alone() {
        let (app, exec) = parsed("--pid=7 --appname=web -- ls --app=x").expect("valid");
        assert_eq!((app.as_str(), exec.join(" ")), ("web", "ls --app=x".into()));
        assert_eq!(parsed("--pid=7 --app=a -- b").expect("valid").0, "a");
        for wrong in ["--pid=7 -- ls", "--appname=a --", "--appname=a ls"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
