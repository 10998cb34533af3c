//! What an app, or a pod as a whole, may use, by its isolators (contract section 3.4) and an app's annotations.

use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use contract::annotation::{self, Annotation};
use contract::image::{App, Isolator, isolators_called};
use contract::{PodManifest, ResourceLimit, quantity};
use guest_init::protocol::{self, Limits};
use serde_json::Value;

use crate::isolators;

const MEMORY: &str = "resource/memory";
const CPU: &str = "resource/cpu";
const BLOCK_BANDWIDTH: &str = "resource/block-bandwidth";
const BLOCK_OPERATIONS: &str = "resource/block-iops";
const NETWORK_BANDWIDTH: &str = "resource/network-bandwidth";
const CPU_SHARES: &str = "os/linux/cpu-shares";
const SYSCTL: &str = "os/unix/sysctl";

/// Isolators of resources that are honoured for an app.
pub const OF_APP: [&str; 5] = [MEMORY, CPU, BLOCK_BANDWIDTH, BLOCK_OPERATIONS, CPU_SHARES];

/// Isolators that are honoured for a pod.
pub const OF_POD: [&str; 6] = [
    MEMORY,
    CPU,
    BLOCK_BANDWIDTH,
    BLOCK_OPERATIONS,
    NETWORK_BANDWIDTH,
    SYSCTL,
];

/// The least memory limit with which an app can be launched at all, MiB.
const MEMORY_MINIMUM_MIB: u64 = 8;

/// The least CPU limit, thousandths of a CPU: what the kernel can give out in a tenth of a second.
const CPU_MINIMUM_MILLI: u128 = 10;

/// CPU shares of an app that says nothing, and the weight that they mean.
const DEFAULT_SHARES: u64 = 1024;
const DEFAULT_WEIGHT: u64 = 100;

/// What `app`, with these annotations in its pod, may use.
///
/// # Errors
/// For a value that its isolator or annotation does not have.
pub fn of_app(app: &App, annotations: &[Annotation]) -> Result<Limits> {
    let shares = isolators::integer(app, CPU_SHARES, 2, 262_144)?;
    let weight = |shares: i64| -> Result<u32> {
        let weight = u64::try_from(shares)? * DEFAULT_WEIGHT / DEFAULT_SHARES;
        Ok(u32::try_from(weight.clamp(1, 10_000))?)
    };
    let processes = annotation::find(annotations, annotation::APP_PROCESSES);
    let processes = processes.map(|text| {
        let count = u32::from_str(text).ok().filter(|count| *count > 0);
        count.with_context(|| format!("a limit of {text:?} processes"))
    });
    Ok(Limits {
        cpu_weight: shares.map(weight).transpose()?,
        processes: processes.transpose()?,
        ..resources(&app.isolators)?
    })
}

/// What the apps of `pod` may use together.
///
/// # Errors
/// As [`of_app`].
pub fn of_pod(pod: &PodManifest) -> Result<Limits> {
    resources(&pod.isolators).context("read the pod's own limits")
}

/// What all network cards of `pod` together may send, and receive, bytes in a second.
///
/// # Errors
/// As [`of_app`].
pub fn network_bytes(pod: &PodManifest) -> Result<Option<u64>> {
    rate(&pod.isolators, NETWORK_BANDWIDTH).context("read the pod's own limits")
}

/// The same of a pod when it begins that grows: from what its isolators request up to their limits.
///
/// # Errors
/// As [`of_app`].
pub fn in_the_beginning(pod: &PodManifest) -> Result<Limits> {
    let mut isolators = pod.isolators.clone();
    for isolator in &mut isolators {
        if let Some(request) = isolator.value.get("request").cloned() {
            isolator.value["limit"] = request;
        }
    }
    resources(&isolators).context("read what the pod begins with")
}

fn resources(isolators: &[Isolator]) -> Result<Limits> {
    Ok(Limits {
        cpu_milli: limit(isolators, CPU)?.map(cpu_milli).transpose()?,
        memory_bytes: limit(isolators, MEMORY)?.map(memory_bytes).transpose()?,
        disk_bytes: rate(isolators, BLOCK_BANDWIDTH)?,
        disk_operations: rate(isolators, BLOCK_OPERATIONS)?,
        ..Limits::default()
    })
}

/// The `limit` of a resource isolator, in thousandths of its unit; of several, the last counts.
fn limit(isolators: &[Isolator], name: &str) -> Result<Option<u128>> {
    let Some(value) = isolators_called(isolators, name).next_back() else {
        return Ok(None);
    };
    let text = match value.get("limit") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => bail!("isolator {name} has no limit"),
    };
    let milli = quantity::parse_milli(&text);
    milli
        .map(Some)
        .with_context(|| format!("read isolator {name}"))
}

fn memory_bytes(milli: u128) -> Result<u64> {
    let bytes = u64::try_from(milli.div_ceil(1000)).context("the memory limit is too large")?;
    ensure!(
        bytes >= MEMORY_MINIMUM_MIB << 20,
        "{bytes} bytes of memory are too little to start an app; give at least {MEMORY_MINIMUM_MIB}Mi"
    );
    Ok(bytes)
}

fn cpu_milli(milli: u128) -> Result<u32> {
    ensure!(
        milli >= CPU_MINIMUM_MILLI,
        "a limit of {milli}m CPUs is too little to run on; give at least {CPU_MINIMUM_MILLI}m"
    );
    u32::try_from(milli).context("the CPU limit is too large")
}

/// What may happen in a second, which is not nothing.
fn rate(isolators: &[Isolator], name: &str) -> Result<Option<u64>> {
    let read = |milli: u128| {
        let rate = u64::try_from(milli / 1000).ok().filter(|rate| *rate > 0);
        rate.with_context(|| format!("the limit of isolator {name} is nothing, or too large"))
    };
    limit(isolators, name)?.map(read).transpose()
}

/// The kernel parameters that a pod sets, by their paths below /proc/sys: of one that is there twice the last counts.
///
/// # Errors
/// For what is no name of one, or no text.
pub fn sysctls(pod: &PodManifest) -> Result<Vec<(String, String)>> {
    let mut sysctls = Vec::new();
    for isolator in isolators_called(&pod.isolators, SYSCTL) {
        let values = isolator.as_object();
        let values =
            values.with_context(|| format!("isolator {SYSCTL} has no names and values"))?;
        for (name, value) in values {
            let value = value.as_str();
            let value = value.with_context(|| format!("isolator {SYSCTL}: {name} has no text"))?;
            sysctls.push((sysctl_path(name)?, value.to_owned()));
        }
    }
    Ok(sysctls)
}

/// As sysctl(8) has it: where the first separator is a dot, dots separate, and slashes are dots of the name.
fn sysctl_path(name: &str) -> Result<String> {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let path = match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('.') => name.chars().map(swap).collect(),
        _ => name.to_owned(),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let climbs = |part: &str| matches!(part, "" | "." | "..");
    ensure!(
        path.chars().all(is_plain) && !path.split('/').any(climbs),
        "{name:?} is no name of a kernel parameter"
    );
    Ok(path)
}

/// Limits of each process of an app with these annotations.
///
/// # Errors
/// For what is none.
pub fn of_processes(annotations: &[Annotation]) -> Result<Vec<protocol::ResourceLimit>> {
    let texts = annotation::find(annotations, annotation::APP_RESOURCE_LIMITS).unwrap_or_default();
    let texts = texts.split(',').filter(|text| !text.is_empty());
    texts
        .map(|text| {
            let limit: ResourceLimit = text.parse()?;
            let resource = serde_json::from_value(Value::from(limit.resource))?;
            Ok(protocol::ResourceLimit {
                resource,
                soft: limit.soft,
                hard: limit.hard,
            })
        })
        .collect::<Result<_>>()
        .with_context(|| format!("read annotation {}", annotation::APP_RESOURCE_LIMITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Error;
    use serde_json::json;

    fn isolators(name: &str, limits: &[&str]) -> Vec<Isolator> {
        let isolator = |limit: &&str| Isolator {
            name: name.into(),
            value: json!({ "limit": limit }),
        };
        limits.iter().map(isolator).collect()
    }

    #[test]
    fn cpu_limit_is_the_last_in_thousandths_and_never_nothing() {
        let milli = |limits: &[&str]| Ok::<_, Error>(resources(&isolators(CPU, limits))?.cpu_milli);
        assert_eq!(milli(&[]).expect("no limit"), None);
        assert_eq!(milli(&["3", "1500m"]).expect("a limit"), Some(1500));
        assert_eq!(milli(&["10m"]).expect("a limit"), Some(10));
        assert!(milli(&["0"]).is_err() && milli(&["9m"]).is_err() && milli(&["1E"]).is_err());
    }

    #[test]
    fn memory_limit_is_the_last_and_never_nothing() {
        let bytes =
            |limits: &[&str]| Ok::<_, Error>(resources(&isolators(MEMORY, limits))?.memory_bytes);
        assert_eq!(bytes(&[]).expect("no limit"), None);
        assert_eq!(bytes(&["1G", "64Mi"]).expect("a limit"), Some(64 << 20));
        assert!(bytes(&["7Mi"]).is_err());
    }

    #[test]
    fn rates_of_disks_are_whole_and_never_nothing() {
        let rate = |limit: &str| rate(&isolators(BLOCK_BANDWIDTH, &[limit]), BLOCK_BANDWIDTH);
        assert_eq!(rate("1M").expect("a rate"), Some(1_000_000));
        assert!(rate("0").is_err() && rate("500m").is_err());
    }

    #[test]
    fn shares_become_a_weight_beside_the_default() {
        for (shares, weight) in [(2, 1), (512, 50), (1024, 100), (262_144, 10_000)] {
            let app = App {
                isolators: vec![Isolator {
                    name: CPU_SHARES.into(),
                    value: json!(shares),
                }],
                ..App::default()
            };
            let limits = of_app(&app, &[]).expect("limits");
            assert_eq!(limits.cpu_weight, Some(weight));
        }
    }

    #[test]
    fn parameters_are_named_by_dots_or_by_paths_that_do_not_climb() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.eth0/1.forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
            (
                "net/ipv4/conf/eth0.1/forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
        ] {
            assert_eq!(sysctl_path(name).expect("a name"), path);
        }
        for wrong in [
            "", ".", "a..b", "../x", "a//b", "a/../b", "net.//.x", "a b", "/a",
        ] {
            assert!(sysctl_path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_of_processes_are_those_of_the_annotation() {
        let limits =
            |text: &str| of_processes(&[Annotation::new(annotation::APP_RESOURCE_LIMITS, text)]);
        let two = limits("nofile=1024:2048,core=0:0").expect("limits");
        assert_eq!(two.len(), 2);
        assert_eq!(
            (two[0].resource, two[0].hard),
            (protocol::Resource::Nofile, 2048)
        );
        assert!(limits("nofile=1,x=2").is_err());
        assert_eq!(of_processes(&[]).expect("none"), []);
        let processes = [Annotation::new(annotation::APP_PROCESSES, "0")];
        assert!(of_app(&App::default(), &processes).is_err());
    }
}
