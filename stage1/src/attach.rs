//! The `attach` entrypoint: this process's stdio becomes that of an app that runs, beside what the app has already. The working
//! directory is the pod directory.

use anyhow::{Context, Result, bail};
use contract::PodDir;
use guest_init::protocol::FIRST_STREAM_PORT;

use crate::clients::{self, Answer, Attachment, Caller, Request};
use crate::streams::{self, Endpoints};
use crate::visit::Visit;
use crate::{plan, terminal};

/// Attaches as `argv` says: `--action=list|auto-attach|custom-attach [--tty-in=BOOL …] --app=NAME --debug=BOOL`. The exit code is
/// the app's; 0 for a user who leaves before its end.
///
/// # Errors
/// When the app does not run, or has no such stream.
pub fn attach(argv: impl Iterator<Item = String>) -> Result<u8> {
    let (app, action) = parse(argv)?;
    let pod = Caller::come(&PodDir::new(".").socket())?;
    pod.ask(&Request::Endpoints(app.clone()), &[])?;
    let has = match pod.hear()? {
        Some(Answer::Endpoints(endpoints)) => endpoints,
        other => return Err(clients::refusal(other)),
    };
    let endpoints = match action {
        Action::List => return list(has),
        Action::Auto => has,
        Action::Custom(endpoints) => endpoints,
    };
    let window = terminal::window().filter(|_| endpoints.terminal && endpoints.streams[0]);
    let request = Request::Attach(Attachment {
        app,
        endpoints,
        window,
    });
    let stdio = plan::streams(FIRST_STREAM_PORT, endpoints.streams);
    Visit::begin(pod, &request, stdio, window.is_some())?.follow()
}

enum Action {
    List,
    Auto,
    Custom(Endpoints),
}

fn parse(argv: impl Iterator<Item = String>) -> Result<(String, Action)> {
    let (mut app, mut action) = (None, None);
    let mut custom = Endpoints::default();
    for argument in argv {
        let (name, value) = argument.split_once('=').unwrap_or((&argument, "true"));
        match name {
            "--app" => app = Some(value.to_owned()),
            "--action" => action = Some(value.to_owned()),
            "--debug" => {}
            _ => {
                let place = match name {
                    "--tty-in" | "--stdin" => 0,
                    "--tty-out" | "--stdout" => 1,
                    "--stderr" => 2,
                    _ => bail!("unknown argument {argument:?}"),
                };
                let given: bool = value
                    .parse()
                    .with_context(|| format!("read {argument:?}"))?;
                custom.streams[place] |= given;
                custom.terminal |= given && name.starts_with("--tty");
            }
        }
    }
    let action = match action.as_deref() {
        Some("list") => Action::List,
        Some("auto-attach") | None => Action::Auto,
        Some("custom-attach") => Action::Custom(custom),
        Some(other) => bail!("unknown action {other:?}"),
    };
    Ok((app.context("no --app")?, action))
}

fn list(has: Endpoints) -> Result<u8> {
    let names = match has.terminal {
        true => ["tty-in", "tty-out", ""],
        false => streams::NAMES,
    };
    for (name, _) in names.iter().zip(has.streams).filter(|(_, has)| *has) {
        println!("{name}");
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_is_parsed_as_the_contract_writes_it() {
        let parsed = |line: &str| parse(line.split_whitespace().map(String::from));
        let custom = parsed(
            "--action=custom-attach --tty-in=false --tty-out=false --stdin=true --stdout=false --stderr=true --app=a --debug=false",
        );
        let Action::Custom(endpoints) = custom.expect("valid").1 else {
            panic!("not custom");
        };
        let wanted = Endpoints {
            streams: [true, false, true],
            terminal: false,
        };
        assert_eq!(endpoints, wanted);
        for wrong in [
            "--action=list",
            "--app=a --action=x",
            "--app=a --stdin=x",
            "--app=a --x",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
