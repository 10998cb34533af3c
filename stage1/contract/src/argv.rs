//! The command line of the `run` entrypoint, interface version 6: written by stage 0, read by stage 1.

use anyhow::{Context, Result, bail};

/// Arguments of `run`, in the contract's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunArguments {
    /// `--debug`.
    pub debug: bool,
    /// `--net=LIST`, always given.
    pub net: String,
    /// `--interactive`.
    pub interactive: bool,
    /// `--private-users=SHIFT:COUNT`.
    pub private_users: Option<String>,
    /// `--mds-token=HEX32`.
    pub mds_token: Option<String>,
    /// `--local-config=DIR`.
    pub local_config: Option<String>,
    /// `--hostname=NAME`; interface 2.
    pub hostname: Option<String>,
    /// `--dns-conf-mode=resolv=M,hosts=M`; interface 4.
    pub dns_conf_mode: Option<String>,
    /// `--disable-capabilities-restriction`; interface 3.
    pub disable_capabilities_restriction: bool,
    /// `--disable-paths`; interface 3.
    pub disable_paths: bool,
    /// `--disable-seccomp`; interface 3.
    pub disable_seccomp: bool,
    /// `--mutable`.
    pub mutable: bool,
    /// `--ipc=VALUE`; interface 6.
    pub ipc: Option<String>,
    /// Lower-case dashed UUID, always last.
    pub uuid: String,
}

/// What an argument says.
enum Place<'a> {
    Flag(&'a mut bool),
    Text(&'a mut Option<String>),
    Always(&'a mut String),
}

impl RunArguments {
    /// All but the UUID, in the contract's order: the interface version that brought it, its name, and what it says.
    fn places(&mut self) -> [(u32, &'static str, Place<'_>); 13] {
        use Place::{Always, Flag, Text};
        let unrestricted = &mut self.disable_capabilities_restriction;
        [
            (1, "debug", Flag(&mut self.debug)),
            (1, "net", Always(&mut self.net)),
            (1, "interactive", Flag(&mut self.interactive)),
            (1, "private-users", Text(&mut self.private_users)),
            (1, "mds-token", Text(&mut self.mds_token)),
            (1, "local-config", Text(&mut self.local_config)),
            (2, "hostname", Text(&mut self.hostname)),
            (4, "dns-conf-mode", Text(&mut self.dns_conf_mode)),
            (3, "disable-capabilities-restriction", Flag(unrestricted)),
            (3, "disable-paths", Flag(&mut self.disable_paths)),
            (3, "disable-seccomp", Flag(&mut self.disable_seccomp)),
            (1, "mutable", Flag(&mut self.mutable)),
            (6, "ipc", Text(&mut self.ipc)),
        ]
    }

    /// The arguments after argv\[0\] for a stage 1 of this interface version, and the names of those it does not know.
    pub fn to_argv(&self, interface_version: u32) -> (Vec<String>, Vec<&'static str>) {
        let mut argv = Vec::new();
        let mut unknown = Vec::new();
        for (since, name, place) in self.clone().places() {
            let argument = match place {
                Place::Flag(false) | Place::Text(None) => continue,
                Place::Flag(true) => format!("--{name}"),
                Place::Text(Some(text)) | Place::Always(text) => format!("--{name}={text}"),
            };
            if since <= interface_version {
                argv.push(argument);
            // An older stage 1 does not restrict what the others disable.
            } else if !name.starts_with("disable-") {
                unknown.push(name);
            }
        }
        argv.push(self.uuid.clone());
        (argv, unknown)
    }

    /// Reads the arguments after argv\[0\].
    ///
    /// # Errors
    /// For an argument that interface 6 does not have, or no UUID at the end.
    pub fn parse(argv: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut run = Self::default();
        let mut argv: Vec<_> = argv.into_iter().collect();
        run.uuid = argv
            .pop()
            .filter(|last| !last.starts_with('-'))
            .context("no pod UUID at the end of the arguments")?;
        for argument in argv {
            let (name, value) = argument
                .split_once('=')
                .map_or((argument.as_str(), None), |(n, v)| (n, Some(v)));
            run.set(name, value)
                .with_context(|| format!("read argument {argument:?} of run"))?;
        }
        Ok(run)
    }

    fn set(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let text = || value.map(str::to_owned).context("it needs a value");
        let mut places = self.places().into_iter();
        let named = places.find(|(_, known, _)| name.strip_prefix("--") == Some(*known));
        match named.context("unknown argument")? {
            (_, _, Place::Flag(place)) => *place = flag(value)?,
            (_, _, Place::Text(place)) => *place = Some(text()?),
            (_, _, Place::Always(place)) => *place = text()?,
        }
        Ok(())
    }
}

fn flag(value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => bail!("{other:?} is neither true nor false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> RunArguments {
        RunArguments {
            debug: true,
            net: "default".into(),
            interactive: true,
            hostname: Some("box".into()),
            disable_seccomp: true,
            ipc: Some("private".into()),
            uuid: "6733aee0-29d7-4e4c-b2b0-5c4b3a0d0b57".into(),
            ..RunArguments::default()
        }
    }

    #[test]
    fn arguments_written_and_read_are_the_same() {
        let (argv, unknown) = full().to_argv(6);
        assert!(unknown.is_empty());
        assert_eq!(argv[0..3], ["--debug", "--net=default", "--interactive"]);
        assert_eq!(
            RunArguments::parse(argv).expect("our own arguments"),
            full()
        );
    }

    #[test]
    fn arguments_for_an_older_interface_are_left_out_and_named() {
        let (argv, unknown) = full().to_argv(1);
        assert_eq!(
            argv,
            ["--debug", "--net=default", "--interactive", &full().uuid]
        );
        assert_eq!(unknown, ["hostname", "ipc"]);
    }

    #[test]
    fn arguments_malformed_are_refused() {
        for argv in [
            vec![],
            vec!["--debug"],
            vec!["--what", "u"],
            vec!["--net", "u"],
            vec!["--debug=maybe", "u"],
        ] {
            assert!(
                RunArguments::parse(argv.iter().map(ToString::to_string)).is_err(),
                "{argv:?}"
            );
        }
    }
}
