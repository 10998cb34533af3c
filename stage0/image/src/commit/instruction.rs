//! Changes to how an image is run, as lines of a Dockerfile say them and podman's `commit --change` takes them. Pure.
//! Dockerfile reference; what podman leaves undefined is as docker has it.

use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use serde_json::json;

use crate::source::convert::port;
use crate::source::document::Execution;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Words that a command line replaces.
    Cmd(Vec<String>),
    /// Words that stay before those; those of the base go.
    Entrypoint(Vec<String>),
    /// A variable and its value.
    Env(String, String),
    /// Ports, each with its protocol.
    Expose(Vec<String>),
    /// A name and its value.
    Label(String, String),
    /// The signal that asks the app to end.
    StopSignal(String),
    /// A user, and perhaps a group.
    User(String),
    /// Absolute paths.
    Volume(Vec<String>),
    /// A path, perhaps relative to the one before.
    WorkingDir(String),
}

impl FromStr for Instruction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.trim().split_once([' ', '=']);
        let (name, value) = parts.unwrap_or((text.trim(), ""));
        let value = value.trim();
        let name = name.to_ascii_uppercase();
        ensure!(
            !value.is_empty() || name == "ENTRYPOINT",
            "{name} needs a value: `{name} VALUE`"
        );
        Ok(match &*name {
            "CMD" => Self::Cmd(words(value)),
            "ENTRYPOINT" => Self::Entrypoint(words(value)),
            "ENV" => pair(value).map(|(name, value)| Self::Env(name, value))?,
            "EXPOSE" => Self::Expose(ports(value)?),
            "LABEL" => pair(value).map(|(name, value)| Self::Label(name, value))?,
            "STOPSIGNAL" => {
                contract::signal::parse(value)?;
                Self::StopSignal(value.to_owned())
            }
            "USER" => Self::User(value.to_owned()),
            "VOLUME" => Self::Volume(volumes(value)?),
            "WORKDIR" => Self::WorkingDir(value.to_owned()),
            "ONBUILD" => {
                bail!("ONBUILD is for a build of docker's, and an OCI image has no place for it")
            }
            _ => bail!(
                "{name} cannot be changed, but CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR"
            ),
        })
    }
}

impl Instruction {
    /// Makes all changes, in order.
    pub fn apply_all(instructions: &[Self], to: &mut Execution) {
        let is = |wanted: fn(&Self) -> bool| instructions.iter().any(wanted);
        if is(|one| matches!(one, Self::Entrypoint(_))) && !is(|one| matches!(one, Self::Cmd(_))) {
            // Words for another program.
            to.cmd = None;
        }
        for instruction in instructions {
            instruction.clone().apply(to);
        }
    }

    fn apply(self, to: &mut Execution) {
        match self {
            Self::Cmd(words) => to.cmd = Some(words),
            Self::Entrypoint(words) => to.entrypoint = Some(words),
            Self::Env(name, value) => {
                let variable = format!("{name}={value}");
                let begin = format!("{name}=");
                match to.env.iter_mut().find(|known| known.starts_with(&begin)) {
                    Some(known) => *known = variable,
                    None => to.env.push(variable),
                }
            }
            Self::Expose(ports) => {
                let ports = ports.into_iter().map(|port| (port, json!({})));
                to.exposed_ports.extend(ports);
            }
            Self::Label(name, value) => drop(to.labels.insert(name, value)),
            Self::StopSignal(signal) => to.stop_signal = signal,
            Self::User(user) => to.user = user,
            Self::Volume(paths) => {
                let paths = paths.into_iter().map(|path| (path, json!({})));
                to.volumes.extend(paths);
            }
            Self::WorkingDir(path) if path.starts_with('/') => to.working_dir = path,
            Self::WorkingDir(path) => {
                let before = to.working_dir.trim_end_matches('/');
                to.working_dir = format!("{before}/{path}");
            }
        }
    }
}

/// A list in JSON, or a line for a shell.
fn words(value: &str) -> Vec<String> {
    match serde_json::from_str(value) {
        Ok(words) => words,
        Err(_) if value.is_empty() => Vec::new(),
        Err(_) => ["/bin/sh", "-c", value].map(str::to_owned).to_vec(),
    }
}

/// `NAME=VALUE`, each perhaps in quotes.
fn pair(value: &str) -> Result<(String, String)> {
    let (name, value) = value
        .split_once('=')
        .with_context(|| format!("{value:?} is no NAME=VALUE"))?;
    let unquoted = |text: &str| {
        let inner = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        inner.unwrap_or(text).to_owned()
    };
    let name = unquoted(name.trim());
    ensure!(!name.is_empty(), "it has no name before the =");
    Ok((name, unquoted(value.trim())))
}

fn ports(value: &str) -> Result<Vec<String>> {
    let one = |text: &str| {
        let port = port(text).filter(|port| ["tcp", "udp"].contains(&&*port.protocol));
        let port = port.with_context(|| format!("{text:?} is no PORT[/tcp|/udp]"))?;
        Ok(match text.contains('/') {
            true => text.to_ascii_lowercase(),
            false => format!("{text}/{}", port.protocol),
        })
    };
    value.split_whitespace().map(one).collect()
}

fn volumes(value: &str) -> Result<Vec<String>> {
    let words = || value.split_whitespace().map(str::to_owned).collect();
    let paths: Vec<String> = serde_json::from_str(value).unwrap_or_else(|_| words());
    ensure!(!paths.is_empty(), "VOLUME needs a path");
    for path in &paths {
        ensure!(path.starts_with('/'), "volume {path:?} is no absolute path");
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(base: Execution, changes: &[&str]) -> Result<Execution> {
        let mut execution = base;
        let changes = changes.iter().map(|text| text.parse());
        let changes = changes.collect::<Result<Vec<Instruction>>>()?;
        Instruction::apply_all(&changes, &mut execution);
        Ok(execution)
    }

    #[test]
    fn changes_of_every_kind_are_made_in_order() -> Result<()> {
        let base = Execution {
            cmd: Some(vec!["old".to_owned()]),
            env: vec!["A=1".to_owned(), "AB=2".to_owned()],
            ..Execution::default()
        };
        let changed = applied(
            base,
            &[
                "entrypoint [\"/bin/e\", \"x y\"]",
                "ENV A=b c=d",
                "ENV=NEW=\"in quotes\"",
                "EXPOSE 80 53/UDP 8000-8010",
                "LABEL org.example.a=b",
                "STOPSIGNAL SIGQUIT",
                "USER 7:8",
                "VOLUME [\"/a b\"]",
                "VOLUME /c /d",
                "WORKDIR /srv/",
                "WORKDIR www",
            ],
        )?;
        assert_eq!(
            changed.entrypoint.as_deref(),
            Some(&["/bin/e".to_owned(), "x y".to_owned()][..])
        );
        assert_eq!(changed.cmd, None, "it was for the old entrypoint");
        assert_eq!(changed.env, ["A=b c=d", "AB=2", "NEW=in quotes"]);
        let ports: Vec<_> = changed.exposed_ports.keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000-8010/tcp"]);
        let volumes: Vec<_> = changed.volumes.keys().collect();
        assert_eq!(volumes, ["/a b", "/c", "/d"]);
        assert_eq!(changed.labels["org.example.a"], "b");
        assert_eq!((&*changed.user, &*changed.stop_signal), ("7:8", "SIGQUIT"));
        assert_eq!(changed.working_dir, "/srv/www");
        Ok(())
    }

    #[test]
    fn words_are_a_list_or_a_line_for_a_shell() -> Result<()> {
        let both = applied(Execution::default(), &["CMD echo $A", "ENTRYPOINT"])?;
        assert_eq!(both.entrypoint, Some(vec![]));
        assert_eq!(both.cmd.unwrap_or_default(), ["/bin/sh", "-c", "echo $A"]);
        Ok(())
    }

    #[test]
    fn change_that_cannot_be_made_is_refused_with_the_reason() {
        for (text, why) in [
            ("ONBUILD RUN x", "no place"),
            ("RUN x", "CMD, ENTRYPOINT"),
            ("", "needs a value"),
            ("CMD", "needs a value"),
            ("ENV A", "NAME=VALUE"),
            ("ENV =1", "no name"),
            ("EXPOSE x", "PORT"),
            ("EXPOSE 80/icmp", "PORT"),
            ("EXPOSE 0", "PORT"),
            ("EXPOSE 70000", "PORT"),
            ("LABEL =1", "no name"),
            ("STOPSIGNAL SIGNONE", "no signal"),
            ("VOLUME here", "absolute"),
            ("VOLUME []", "needs a path"),
        ] {
            let error = text.parse::<Instruction>().expect_err(text);
            assert!(error.to_string().contains(why), "{text}: {error:#}");
        }
    }
}
