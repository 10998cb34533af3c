//! What apps have as /etc/resolv.conf and /etc/hosts, as `--dns-conf-mode` says (contract sections 1.2, 1.3 and 3.5): copies,
//! taken as the pod starts. `default` is what a network of the pod says (`network`), else the image's.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use contract::{PodDir, RunArguments, bounded};

/// The largest file that is passed on, bytes: however it is escaped, two fit a control message.
const LIMIT_BYTES: u64 = 256 << 10;

/// The files; `None` = the image's own.
#[derive(Debug, Default)]
pub struct Names {
    /// For /etc/resolv.conf.
    pub resolv: Option<String>,
    /// For /etc/hosts.
    pub hosts: Option<String>,
    /// Whether the first is what a network says, if one does.
    pub of_networks: bool,
}

impl Names {
    /// Reads the files that the pod is to have, from its directory or from the host.
    ///
    /// # Errors
    /// For a mode that there is not, or a file that cannot be read.
    pub fn read(pod: &PodDir, arguments: &RunArguments, hostname: &str) -> Result<Self> {
        let mut names = Self {
            of_networks: true,
            ..Self::default()
        };
        let etc = pod.stage1_rootfs().join("etc");
        let mode = arguments.dns_conf_mode.iter();
        for part in mode.flat_map(|mode| mode.split(',')) {
            match part {
                "resolv=default" | "hosts=default" => {}
                "resolv=none" => names.of_networks = false,
                "resolv=host" => names.resolv = Some(read(Path::new("/etc/resolv.conf"))?),
                "hosts=host" => names.hosts = Some(read(Path::new("/etc/hosts"))?),
                "resolv=stage0" => names.resolv = Some(read(&etc.join("rkt-resolv.conf"))?),
                "hosts=stage0" => {
                    let given = read(&etc.join("rkt-hosts"))?;
                    names.hosts = Some(format!("{given}\n127.0.0.1 {hostname}\n"));
                }
                _ => bail!(
                    "--dns-conf-mode: there is no {part:?}; resolv is host, stage0, none or default, hosts is host, stage0 or default"
                ),
            }
        }
        Ok(names)
    }
}

fn read(path: &Path) -> Result<String> {
    let read = || bounded::read(File::open(path)?, LIMIT_BYTES);
    let bytes = read().with_context(|| {
        format!(
            "read {} for the pod's apps (--dns and --hosts-entry give them files of their own)",
            path.display()
        )
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(pod: &Path, mode: &str) -> Result<Names> {
        let arguments = RunArguments {
            dns_conf_mode: Some(mode.into()),
            ..RunArguments::default()
        };
        Names::read(&PodDir::new(pod), &arguments, "box")
    }

    #[test]
    fn names_of_stage0_are_its_files_and_those_of_the_host_the_hosts() -> Result<()> {
        let pod = tempfile::tempdir()?;
        let etc = pod.path().join("stage1/rootfs/etc");
        fs::create_dir_all(&etc)?;
        fs::write(etc.join("rkt-resolv.conf"), "nameserver 192.0.2.1\n")?;
        fs::write(etc.join("rkt-hosts"), "192.0.2.2 other")?;
        let given = names(pod.path(), "resolv=stage0,hosts=stage0")?;
        assert_eq!(given.resolv.as_deref(), Some("nameserver 192.0.2.1\n"));
        assert_eq!(
            given.hosts.as_deref(),
            Some("192.0.2.2 other\n127.0.0.1 box\n")
        );
        let hosts = names(pod.path(), "resolv=none,hosts=host")?;
        assert_eq!(hosts.resolv, None);
        assert_eq!(hosts.hosts, Some(fs::read_to_string("/etc/hosts")?));
        let image = names(pod.path(), "resolv=default,hosts=default")?;
        assert_eq!((image.resolv, image.hosts), (None, None));
        Ok(())
    }

    #[test]
    fn names_of_no_mode_missing_or_endless_are_refused() -> Result<()> {
        let pod = tempfile::tempdir()?;
        let etc = pod.path().join("stage1/rootfs/etc");
        fs::create_dir_all(&etc)?;
        std::os::unix::fs::symlink("/dev/zero", etc.join("rkt-hosts"))?;
        for (mode, reason) in [
            ("resolv", "there is no"),
            ("resolv=stage1", "there is no"),
            ("hosts=none", "there is no"),
            ("resolv=stage0", "rkt-resolv.conf"),
            ("hosts=stage0", "more than 262144 bytes"),
        ] {
            let error = format!("{:#}", names(pod.path(), mode).expect_err("refused"));
            assert!(error.contains(reason), "{reason} not in {error}");
        }
        Ok(())
    }
}
