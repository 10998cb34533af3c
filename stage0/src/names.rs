//! Where a pod's apps look names up, as rkt's flags say it: the mode that stage 1 is told, and the files it then finds in
//! its own root file system (contract sections 1.2 and 1.3).

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};

use crate::cli::NameFlags;
use crate::pods::{Pod, make_directory};

/// What comes of the flags.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    resolv_mode: &'static str,
    /// Of mode `stage0`: the file.
    resolv: String,
    hosts_mode: &'static str,
    /// Of mode `stage0`: the file.
    hosts: String,
}

impl Names {
    /// Reads the flags.
    ///
    /// # Errors
    /// If they contradict each other or are malformed.
    pub fn new(flags: &NameFlags) -> Result<Self> {
        let (resolv_mode, resolv) = resolv(flags)?;
        let (hosts_mode, hosts) = hosts(&flags.hosts_entry)?;
        Ok(Self {
            resolv_mode,
            resolv,
            hosts_mode,
            hosts,
        })
    }

    /// Writes the files into the pod.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn write(&self, pod: &Pod) -> Result<()> {
        let etc = pod.dir().stage1_rootfs().join("etc");
        for (mode, name, text) in [
            (self.resolv_mode, "rkt-resolv.conf", &self.resolv),
            (self.hosts_mode, "rkt-hosts", &self.hosts),
        ] {
            if mode == "stage0" {
                make_directory(&etc)?;
                let path = etc.join(name);
                // One of the image's own may be a link that other pods share.
                let _ = fs::remove_file(&path);
                fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// The value of `--dns-conf-mode`; `None` where stage 1 decides.
    pub fn mode(&self) -> Option<String> {
        let (resolv, hosts) = (self.resolv_mode, self.hosts_mode);
        ((resolv, hosts) != ("default", "default"))
            .then(|| format!("resolv={resolv},hosts={hosts}"))
    }
}

fn resolv(flags: &NameFlags) -> Result<(&'static str, String)> {
    let has_more =
        !flags.dns_search.is_empty() || !flags.dns_opt.is_empty() || flags.dns_domain.is_some();
    for mode in ["host", "none"] {
        if flags.dns.iter().any(|server| server == mode) {
            if flags.dns.len() > 1 || has_more {
                bail!(
                    "--dns={mode} goes with no other --dns and no --dns-search, --dns-opt, --dns-domain"
                );
            }
            return Ok((mode, String::new()));
        }
    }
    if flags.dns.is_empty() && !has_more {
        return Ok(("default", String::new()));
    }
    let mut lines = Vec::new();
    for server in &flags.dns {
        let address: IpAddr = server
            .parse()
            .with_context(|| format!("read --dns={server} (an address, host or none)"))?;
        lines.push(format!("nameserver {address}"));
    }
    for word in flags
        .dns_domain
        .iter()
        .chain(&flags.dns_search)
        .chain(&flags.dns_opt)
    {
        if word.is_empty() || word.contains(char::is_whitespace) {
            bail!("{word:?} is no single word for resolv.conf");
        }
    }
    lines.extend(
        flags
            .dns_domain
            .iter()
            .map(|domain| format!("domain {domain}")),
    );
    for (word, values) in [("search", &flags.dns_search), ("options", &flags.dns_opt)] {
        if !values.is_empty() {
            lines.push(format!("{word} {}", values.join(" ")));
        }
    }
    Ok(("stage0", lines.join("\n") + "\n"))
}

fn hosts(entries: &[String]) -> Result<(&'static str, String)> {
    match entries {
        [] => return Ok(("default", String::new())),
        [only] if only == "host" => return Ok(("host", String::new())),
        _ => {}
    }
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for entry in entries {
        let read = || {
            let (address, name) = entry.split_once('=').context("no = after the address")?;
            let address: IpAddr = address.parse()?;
            if name.is_empty() || name.contains(char::is_whitespace) {
                bail!("{name:?} is no host name");
            }
            Ok(format!("{address} {name}\n"))
        };
        text += &read()
            .with_context(|| format!("read --hosts-entry={entry} (ADDRESS=NAME, or host alone)"))?;
    }
    Ok(("stage0", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(dns: &[&str], hosts: &[&str]) -> NameFlags {
        let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        NameFlags {
            dns: owned(dns),
            hosts_entry: owned(hosts),
            ..NameFlags::default()
        }
    }

    #[test]
    fn names_of_each_mode_are_rkts() {
        for (dns, hosts, modes) in [
            (&[][..], &[][..], ("default", "default")),
            (&["host"], &["host"], ("host", "host")),
            (&["none"], &[], ("none", "default")),
            (&["8.8.8.8"], &["10.0.0.1=a"], ("stage0", "stage0")),
        ] {
            let names = Names::new(&flags(dns, hosts)).expect("modes");
            assert_eq!((names.resolv_mode, names.hosts_mode), modes);
        }
    }

    #[test]
    fn names_given_are_written() {
        let given = NameFlags {
            dns_search: vec!["a.example".into(), "b.example".into()],
            dns_opt: vec!["ndots:2".into()],
            ..flags(&["8.8.8.8", "::1"], &["10.0.0.1=a", "10.0.0.2=b"])
        };
        let names = Names::new(&given).expect("files");
        assert_eq!(
            names.resolv,
            "nameserver 8.8.8.8\nnameserver ::1\nsearch a.example b.example\noptions ndots:2\n"
        );
        assert!(names.hosts.ends_with("10.0.0.1 a\n10.0.0.2 b\n"));
    }

    #[test]
    fn names_that_contradict_or_are_none_are_refused() {
        for (dns, hosts) in [
            (&["host", "8.8.8.8"][..], &[][..]),
            (&["none", "none"], &[]),
            (&["a.example"], &[]),
            (&[], &["host", "10.0.0.1=a"]),
            (&[], &["10.0.0.1"]),
            (&[], &["10.0.0.1="]),
            (&[], &["10.0.0.1=a b"]),
        ] {
            assert!(Names::new(&flags(dns, hosts)).is_err(), "{dns:?} {hosts:?}");
        }
    }
}
