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

impl RunArguments {
    /// The arguments after argv\[0\] for a stage 1 of this interface version, and the names of those it does not know.
    pub fn to_argv(&self, interface_version: u32) -> (Vec<String>, Vec<&'static str>) {
        let mut argv = Vec::new();
        let mut unknown = Vec::new();
        let value = |text: &Option<String>, name: &str| {
            text.as_ref().map(|text| format!("--{name}={text}"))
        };
        let flag = |set: bool, name: &str| set.then(|| format!("--{name}"));
        let known = [
            (1, "debug", flag(self.debug, "debug")),
            (1, "net", Some(format!("--net={}", self.net))),
            (1, "interactive", flag(self.interactive, "interactive")),
            (
                1,
                "private-users",
                value(&self.private_users, "private-users"),
            ),
            (1, "mds-token", value(&self.mds_token, "mds-token")),
            (1, "local-config", value(&self.local_config, "local-config")),
            (2, "hostname", value(&self.hostname, "hostname")),
            (
                4,
                "dns-conf-mode",
                value(&self.dns_conf_mode, "dns-conf-mode"),
            ),
            (
                3,
                "",
                flag(
                    self.disable_capabilities_restriction,
                    "disable-capabilities-restriction",
                ),
            ),
            (3, "", flag(self.disable_paths, "disable-paths")),
            (3, "", flag(self.disable_seccomp, "disable-seccomp")),
            (1, "mutable", flag(self.mutable, "mutable")),
            (6, "ipc", value(&self.ipc, "ipc")),
        ];
        for (since, name, argument) in known {
            match argument {
                Some(argument) if since <= interface_version => argv.push(argument),
                Some(_) if !name.is_empty() => unknown.push(name),
                _ => {}
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
        match name {
            "--debug" => self.debug = flag(value)?,
            "--net" => self.net = text()?,
            "--interactive" => self.interactive = flag(value)?,
            "--private-users" => self.private_users = Some(text()?),
            "--mds-token" => self.mds_token = Some(text()?),
            "--local-config" => self.local_config = Some(text()?),
            "--hostname" => self.hostname = Some(text()?),
            "--dns-conf-mode" => self.dns_conf_mode = Some(text()?),
            "--disable-capabilities-restriction" => {
                self.disable_capabilities_restriction = flag(value)?;
            }
            "--disable-paths" => self.disable_paths = flag(value)?,
            "--disable-seccomp" => self.disable_seccomp = flag(value)?,
            "--mutable" => self.mutable = flag(value)?,
            "--ipc" => self.ipc = Some(text()?),
            _ => bail!("unknown argument"),
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
