//! How large a pod's machine is: CPUs, memory and scratch disk, from the apps' limits and the pod's annotations.

use anyhow::{Context, Result, bail, ensure};
use contract::annotation::{self, Annotation};
use contract::image::App as ManifestApp;
use contract::quantity;

use crate::plan::Host;

/// Memory of a pod without a limit, MiB; rkt's floor for virtual machines.
const DEFAULT_MEMORY_MIB: u64 = 512;

/// What the machine needs beside the apps' limit, MiB: kernel, page tables, guest-init.
const MEMORY_OVERHEAD_MIB: u64 = 64;

/// The least memory limit with which an app can be launched at all, MiB.
const MEMORY_MINIMUM_MIB: u64 = 8;

/// The most memory of a machine, MiB: less than the physical addresses of any CPU with KVM reach.
const MEMORY_MAXIMUM_MIB: u64 = 512 << 10;

/// The least CPU limit, thousandths of a CPU: what the kernel can give out in a tenth of a second.
const CPU_MINIMUM_MILLI: u128 = 10;

/// Size of the scratch disk when nobody says otherwise, bytes; sparse on the host.
const DEFAULT_SCRATCH_BYTES: u64 = 10 << 30;

/// The smallest scratch disk that holds the file system template, bytes.
const SCRATCH_MINIMUM_BYTES: u64 = 32 << 20;

/// The largest scratch disk that the template can grow to, bytes.
const SCRATCH_MAXIMUM_BYTES: u64 = 4 << 40;

/// The `limit` of a resource isolator, in thousandths of its unit.
fn limit(app: &ManifestApp, isolator: &str) -> Result<Option<u128>> {
    let Some(value) = app.isolator(isolator) else {
        return Ok(None);
    };
    let text = match value.get("limit") {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Number(number)) => number.to_string(),
        _ => bail!("isolator {isolator} has no limit"),
    };
    Ok(Some(
        quantity::parse_milli(&text).with_context(|| format!("read isolator {isolator}"))?,
    ))
}

/// Sum of the apps' limits, and whether there is an app without one.
fn total<'a>(apps: impl Iterator<Item = &'a ManifestApp>, isolator: &str) -> Result<(u128, bool)> {
    let (mut sum, mut unlimited) = (0_u128, false);
    for app in apps {
        match limit(app, isolator)? {
            Some(limit) => {
                sum = sum
                    .checked_add(limit)
                    .context("the limits' sum is too large")?;
            }
            None => unlimited = true,
        }
    }
    Ok((sum, unlimited))
}

/// Memory that an app may use, bytes; `None` if it has no limit.
pub fn memory_bytes(app: &ManifestApp) -> Result<Option<u64>> {
    let Some(milli) = limit(app, "resource/memory")? else {
        return Ok(None);
    };
    let bytes = u64::try_from(milli.div_ceil(1000)).context("the memory limit is too large")?;
    ensure!(
        bytes >= MEMORY_MINIMUM_MIB << 20,
        "{bytes} bytes of memory are too little to start an app; give at least {MEMORY_MINIMUM_MIB}Mi"
    );
    Ok(Some(bytes))
}

/// CPU time that an app may use, thousandths of a CPU; `None` if it has no limit.
pub fn cpu_milli(app: &ManifestApp) -> Result<Option<u32>> {
    let Some(milli) = limit(app, "resource/cpu")? else {
        return Ok(None);
    };
    ensure!(
        milli >= CPU_MINIMUM_MILLI,
        "a limit of {milli}m CPUs is too little to run on; give at least {CPU_MINIMUM_MILLI}m"
    );
    u32::try_from(milli)
        .map(Some)
        .context("the CPU limit is too large")
}

/// CPUs of the machine: the sum of the apps' limits, or, where an app has none, at least all of the host's.
pub fn cpus<'a>(
    apps: impl Iterator<Item = &'a ManifestApp>,
    host: &Host,
    warnings: &mut Vec<String>,
) -> Result<u8> {
    let most = host.kvm_cpus.min(u64::from(vmm::layout::MAX_CPUS));
    let (milli, unlimited) = total(apps, "resource/cpu")?;
    let all = if unlimited {
        host.cpus.clamp(1, most)
    } else {
        1
    };
    let wanted = milli.div_ceil(1000).max(all.into());
    ensure!(
        wanted <= u128::from(most),
        "{wanted} CPUs asked for; this host's KVM gives a machine at most {most}"
    );
    if wanted > u128::from(host.cpus) {
        warnings.push(format!(
            "{wanted} CPUs asked for, the host has {}: they will share",
            host.cpus
        ));
    }
    Ok(u8::try_from(wanted)?)
}

/// Memory of the machine, MiB: the sum of the apps' limits, something for all without one, and what the machine itself needs.
pub fn memory_mib<'a>(
    apps: impl Iterator<Item = &'a ManifestApp>,
    host: &Host,
    warnings: &mut Vec<String>,
) -> Result<u32> {
    let (milli, unlimited) = total(apps, "resource/memory")?;
    let limits_mib =
        u64::try_from(milli.div_ceil(1000 << 20)).context("the memory limit is too large")?;
    let unlimited_mib = match unlimited {
        true => DEFAULT_MEMORY_MIB - MEMORY_OVERHEAD_MIB,
        false => 0,
    };
    let limit_mib = limits_mib.saturating_add(unlimited_mib);
    let machine = limit_mib.saturating_add(MEMORY_OVERHEAD_MIB);
    ensure!(
        machine <= MEMORY_MAXIMUM_MIB,
        "{machine} MiB is more memory than a machine can have"
    );
    if machine > host.memory_mib {
        warnings.push(format!(
            "the machine may use {machine} MiB, the host has {} MiB",
            host.memory_mib
        ));
    }
    Ok(u32::try_from(machine)?)
}

/// Size of the scratch disk, bytes; `None` = writable layers on a tmpfs.
pub fn scratch_bytes(annotations: &[Annotation]) -> Result<Option<u64>> {
    if annotation::find(annotations, annotation::POD_TMPFS_ROOT) == Some("true") {
        return Ok(None);
    }
    let Some(text) = annotation::find(annotations, annotation::POD_SCRATCH_SIZE) else {
        return Ok(Some(DEFAULT_SCRATCH_BYTES));
    };
    let bytes = quantity::parse_whole(text).context("read the scratch size")?;
    ensure!(
        bytes >= SCRATCH_MINIMUM_BYTES,
        "a scratch size of {text} is too small; give at least 32Mi"
    );
    ensure!(
        bytes <= SCRATCH_MAXIMUM_BYTES,
        "a scratch size of {text} is too large; give at most 4Ti"
    );
    Ok(Some(bytes.next_multiple_of(4096)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::image::Isolator;
    use serde_json::json;

    const HOST: Host = Host {
        cpus: 4,
        memory_mib: 1024,
        kvm_cpus: 64,
        window: None,
    };

    fn app(name: &str, limits: &[&str]) -> ManifestApp {
        let isolator = |limit: &&str| Isolator {
            name: name.into(),
            value: json!({ "limit": limit }),
        };
        ManifestApp {
            isolators: limits.iter().map(isolator).collect(),
            ..ManifestApp::default()
        }
    }

    #[test]
    fn cpus_without_a_limit_are_the_hosts_and_with_one_the_last_limit_rounded_up() {
        let mut warnings = Vec::new();
        let mut cpus = |limits: &[&str]| {
            cpus(
                [&app("resource/cpu", limits)].into_iter(),
                &HOST,
                &mut warnings,
            )
        };
        assert_eq!(cpus(&[]).expect("a size"), 4);
        assert_eq!(cpus(&["3", "1500m"]).expect("a size"), 2);
        assert!(cpus(&["33"]).is_err());
        assert_eq!(cpus(&["8"]).expect("a size"), 8);
        assert_eq!(warnings.len(), 1, "more than the host has is told");
    }

    #[test]
    fn cpu_limit_is_the_last_in_thousandths_and_never_nothing() {
        let milli = |limits: &[&str]| cpu_milli(&app("resource/cpu", limits));
        assert_eq!(milli(&[]).expect("no limit"), None);
        assert_eq!(milli(&["3", "1500m"]).expect("a limit"), Some(1500));
        assert_eq!(milli(&["10m"]).expect("a limit"), Some(10));
        assert!(milli(&["0"]).is_err() && milli(&["9m"]).is_err() && milli(&["1E"]).is_err());
    }

    #[test]
    fn memory_is_the_limit_and_the_machines_own_within_bounds() {
        let mut warnings = Vec::new();
        let mut memory = |limits: &[&str]| {
            memory_mib(
                [&app("resource/memory", limits)].into_iter(),
                &HOST,
                &mut warnings,
            )
        };
        assert_eq!(memory(&[]).expect("a size"), 512);
        assert_eq!(memory(&["256Mi"]).expect("a size"), 320);
        assert!(memory(&["1Ei"]).is_err() && memory(&["x"]).is_err());
        assert_eq!(memory(&["2Gi"]).expect("a size"), 2112);
        assert_eq!(warnings.len(), 1, "more than the host has is told");
    }

    #[test]
    fn machine_of_several_apps_has_room_for_all() {
        let apps = [app("resource/memory", &["64Mi"]), app("none", &[])];
        let both = [&apps[0], &apps[0]];
        let mut warnings = Vec::new();
        let mut memory =
            |apps: [&ManifestApp; 2]| memory_mib(apps.into_iter(), &HOST, &mut warnings);
        assert_eq!(memory(both).expect("a size"), 192);
        assert_eq!(memory([&apps[0], &apps[1]]).expect("a size"), 576);
        let apps = [app("resource/cpu", &["1500m"]), app("none", &[])];
        let mut cpus = |apps: [&ManifestApp; 2]| cpus(apps.into_iter(), &HOST, &mut warnings);
        assert_eq!(cpus([&apps[0], &apps[0]]).expect("a size"), 3);
        assert_eq!(cpus([&apps[0], &apps[1]]).expect("a size"), 4);
    }

    #[test]
    fn memory_limit_of_an_app_is_the_last_and_never_nothing() {
        let bytes = |limits: &[&str]| memory_bytes(&app("resource/memory", limits));
        assert_eq!(bytes(&[]).expect("no limit"), None);
        assert_eq!(bytes(&["1G", "64Mi"]).expect("a limit"), Some(64 << 20));
        assert!(bytes(&["7Mi"]).is_err());
    }

    #[test]
    fn scratch_is_sized_by_annotation_within_bounds_or_absent() {
        let scratch = |name, value: &str| scratch_bytes(&[Annotation::new(name, value)]);
        assert_eq!(scratch_bytes(&[]).expect("a size"), Some(10 << 30));
        assert_eq!(
            scratch(annotation::POD_TMPFS_ROOT, "true").expect("a size"),
            None
        );
        assert_eq!(
            scratch(annotation::POD_SCRATCH_SIZE, "64Mi").expect("a size"),
            Some(64 << 20)
        );
        assert!(scratch(annotation::POD_SCRATCH_SIZE, "1Mi").is_err());
        assert!(scratch(annotation::POD_SCRATCH_SIZE, "5Ti").is_err());
    }
}
