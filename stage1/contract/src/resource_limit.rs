//! Limits of processes, setrlimit(2), as podman's `--ulimit` spells them: `nofile=1024:4096`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};

/// What can be limited: the names that follow `RLIMIT_`, in lower case.
const RESOURCES: &str = "as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, \
    sigpending, stack";

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// Of what: a name that follows `RLIMIT_`, in lower case.
    pub resource: String,
    /// In force; [`u64::MAX`] = none.
    pub soft: u64,
    /// What it can be raised to.
    pub hard: u64,
}

impl FromStr for ResourceLimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (resource, values) = text.split_once('=').context("expected NAME=SOFT[:HARD]")?;
        ensure!(
            RESOURCES.split(", ").any(|known| known == resource),
            "there is no limit of {resource:?}; there are {RESOURCES}"
        );
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let limit = Self {
            resource: resource.to_owned(),
            soft: value(soft)?,
            hard: value(hard)?,
        };
        ensure!(
            limit.soft <= limit.hard,
            "the limit in force is above what it can be raised to"
        );
        Ok(limit)
    }
}

fn value(text: &str) -> Result<u64> {
    match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => text
            .parse()
            .with_context(|| format!("{text:?} is no limit: a number or unlimited")),
    }
}

impl fmt::Display for ResourceLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: u64| match value {
            u64::MAX => "unlimited".to_owned(),
            value => value.to_string(),
        };
        let (soft, hard) = (value(self.soft), value(self.hard));
        write!(out, "{}={soft}:{hard}", self.resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_as_they_are_written() {
        for (text, whole) in [
            ("nofile=1024:4096", "nofile=1024:4096"),
            ("core=0", "core=0:0"),
            ("stack=8388608:-1", "stack=8388608:unlimited"),
        ] {
            let limit: ResourceLimit = text.parse().expect("a limit");
            assert_eq!(limit.to_string(), whole);
            assert_eq!(whole.parse::<ResourceLimit>().expect("a limit"), limit);
        }
        for wrong in [
            "nofile",
            "files=1",
            "nofile=",
            "nofile=2:1",
            "nofile=x",
            "core=1:2:3",
        ] {
            assert!(wrong.parse::<ResourceLimit>().is_err(), "{wrong}");
        }
    }
}
