//! How large a pod's machine is: CPUs, memory and scratch disk, from the limits of its apps and of the pod and from the pod's
//! annotations; and what the host caps its process at.

use anyhow::{Context, Result, ensure};
use contract::annotation::{self, Annotation};
use contract::quantity;
use guest_init::protocol::Limits;
use serde::{Deserialize, Serialize};
use vmm::layout::NETWORK_CARDS;

use crate::growth::Growth;
use crate::network::MOST_QUEUES;
use crate::plan::{Host, MAX_APPS};

/// Memory of a pod without a limit, MiB; rkt's floor for virtual machines.
pub const DEFAULT_MEMORY_MIB: u64 = 512;

/// What the machine needs beside the apps' limit, MiB: kernel, page tables, guest-init.
pub const MEMORY_OVERHEAD_MIB: u64 = 64;

/// What the machine's process may take beside the machine, MiB: its own memory, which is a few, and file pages on their way.
const PROCESS_MIB: u64 = 64;

/// The kernel's tables of the machine's memory, of the process and of KVM, take less than this part of it.
pub const TABLES_PART: u64 = 64;

/// What the kernel keeps for files of shares that the guest remembers, MiB: for each of a million 2 KiB.
const SHARED_FILES_MIB: u64 = 2048;

/// Threads of the machine's process beside vCPUs, those of network cards and the pumps of its apps.
const THREADS: u64 = 32;

/// Threads that move the stdio of one app.
const THREADS_PER_APP: u64 = 3;

/// The most memory of a machine, MiB: less than the physical addresses of any CPU with KVM reach.
const MEMORY_MAXIMUM_MIB: u64 = 512 << 10;

/// Size of the scratch disk when nobody says otherwise, bytes; sparse on the host.
const DEFAULT_SCRATCH_BYTES: u64 = 10 << 30;

/// The smallest scratch disk that holds the file system template, bytes.
const SCRATCH_MINIMUM_BYTES: u64 = 32 << 20;

/// The largest scratch disk that the template can grow to, bytes.
const SCRATCH_MAXIMUM_BYTES: u64 = 4 << 40;

/// Limits of each app, and of all together.
#[derive(Clone)]
pub struct PodLimits {
    /// In the apps' order.
    pub apps: Vec<Limits>,
    /// The pod's own.
    pub pod: Limits,
}

/// A pod's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// CPUs.
    pub cpus: u8,
    /// Memory, MiB.
    pub memory_mib: u32,
}

impl PodLimits {
    /// Sum of what the apps are limited to, and whether there is an app without a limit.
    pub fn of_apps(&self, limit: impl Fn(&Limits) -> Option<u64>) -> (u64, bool) {
        let limits = || self.apps.iter().map(&limit);
        let sum = limits().flatten().fold(0, u64::saturating_add);
        (sum, limits().any(|limit| limit.is_none()))
    }

    /// The most that all apps together can take.
    fn together(&self, limit: impl Fn(&Limits) -> Option<u64>) -> Option<u64> {
        let pod = limit(&self.pod);
        let (sum, unlimited) = self.of_apps(limit);
        let apps = (!unlimited).then_some(sum);
        [apps, pod].into_iter().flatten().min()
    }

    /// CPUs of the machine: the sum of the apps' limits, or, where an app has none, at least all of the host's; no more than
    /// the pod's limit.
    fn cpus(&self, host: &Host, warnings: &mut Vec<String>) -> Result<u8> {
        let most = most_cpus(host);
        let (milli, unlimited) = self.of_apps(cpu_milli);
        let all = if unlimited {
            host.cpus.clamp(1, most)
        } else {
            1
        };
        let of_pod = cpu_milli(&self.pod).map_or(u64::MAX, |milli| milli.div_ceil(1000));
        let wanted = milli.div_ceil(1000).max(all).min(of_pod);
        ensure!(
            wanted <= most,
            "{wanted} CPUs asked for; this host's KVM gives a machine at most {most}"
        );
        if wanted > host.cpus {
            warnings.push(format!(
                "{wanted} CPUs asked for, the host has {}: they will share",
                host.cpus
            ));
        }
        Ok(u8::try_from(wanted)?)
    }

    /// Memory of the machine, MiB: the sum of the apps' limits and something for all without one, or the pod's limit, and what
    /// the machine itself needs.
    fn memory_mib(&self, host: &Host, warnings: &mut Vec<String>) -> Result<u32> {
        let (bytes, unlimited) = self.of_apps(|limits| limits.memory_bytes);
        let apps_mib = bytes.div_ceil(1 << 20);
        let pod_mib = self.pod.memory_bytes.map(|bytes| bytes.div_ceil(1 << 20));
        let limit_mib = match (unlimited, pod_mib) {
            (true, Some(pod)) => pod,
            (true, None) => apps_mib.saturating_add(DEFAULT_MEMORY_MIB - MEMORY_OVERHEAD_MIB),
            (false, pod) => apps_mib.min(pod.unwrap_or(u64::MAX)),
        };
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

    /// The pod's machine; if apps come later, one that is no larger than `begins` in the beginning, and grows.
    pub fn growth(
        &self,
        begins: Option<Limits>,
        host: &Host,
        shares: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Growth> {
        let in_the_beginning = Self {
            pod: begins.unwrap_or(self.pod),
            ..self.clone()
        };
        let start = Machine {
            cpus: in_the_beginning.cpus(host, warnings)?,
            memory_mib: in_the_beginning.memory_mib(host, warnings)?,
        };
        let mut most = start;
        if begins.is_some() {
            let cpus = cpu_milli(&self.pod).map_or(0, |milli| milli.div_ceil(1000));
            most.cpus = most.cpus.max(u8::try_from(cpus.min(most_cpus(host)))?);
            let memory_mib = match self.pod.memory_bytes {
                Some(_) => self.memory_mib(host, warnings)?,
                None => u32::try_from(host.memory_mib.min(MEMORY_MAXIMUM_MIB))?,
            };
            most.memory_mib = most.memory_mib.max(memory_mib);
        }
        let most_apps = match begins {
            Some(_) => MAX_APPS,
            None => self.apps.len(),
        };
        let caps = in_the_beginning.caps(start.memory_mib, most.cpus, most_apps, shares);
        Ok(Growth { start, most, caps })
    }

    /// What the host caps the process of such a machine at, exactly, where there is a limit.
    fn caps(&self, memory_mib: u32, cpus: u8, apps: usize, shares: bool) -> Limits {
        let shared_mib = if shares { SHARED_FILES_MIB } else { 0 };
        let machine_mib = u64::from(memory_mib);
        let memory_mib = machine_mib + machine_mib / TABLES_PART + PROCESS_MIB + shared_mib;
        // For each pair of queues one, and one more.
        let of_card = u64::from(cpus.min(MOST_QUEUES)) + 1;
        let of_cards = u64::from(NETWORK_CARDS) * of_card;
        let threads = THREADS + u64::from(cpus) + of_cards + apps as u64 * THREADS_PER_APP;
        let cpu_milli = self.together(cpu_milli);
        Limits {
            cpu_milli: cpu_milli.map(|milli| u32::try_from(milli).unwrap_or(u32::MAX)),
            cpu_weight: None,
            memory_bytes: Some(memory_mib << 20),
            processes: Some(u32::try_from(threads).unwrap_or(u32::MAX)),
            disk_bytes: self.together(|limits| limits.disk_bytes),
            disk_operations: self.together(|limits| limits.disk_operations),
        }
    }
}

fn most_cpus(host: &Host) -> u64 {
    host.kvm_cpus.min(vmm::layout::MAX_CPUS.into())
}

/// CPU time, thousandths of a CPU.
pub fn cpu_milli(limits: &Limits) -> Option<u64> {
    limits.cpu_milli.map(u64::from)
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
pub mod tests {
    use super::*;

    pub const HOST: Host = Host {
        cpus: 4,
        memory_mib: 1024,
        kvm_cpus: 64,
        root: true,
        window: None,
        kernel_parameters: String::new(),
    };

    pub fn cpu(milli: u32) -> Limits {
        Limits {
            cpu_milli: Some(milli),
            ..Limits::default()
        }
    }

    pub fn memory(mib: u64) -> Limits {
        Limits {
            memory_bytes: Some(mib << 20),
            ..Limits::default()
        }
    }

    pub const NONE: Limits = Limits {
        cpu_milli: None,
        cpu_weight: None,
        memory_bytes: None,
        processes: None,
        disk_bytes: None,
        disk_operations: None,
    };

    pub fn limits(apps: &[Limits], pod: Limits) -> PodLimits {
        PodLimits {
            apps: apps.to_vec(),
            pod,
        }
    }

    #[test]
    fn cpus_are_the_hosts_or_the_limits_rounded_up_and_no_more_than_the_pods() {
        let mut warnings = Vec::new();
        let mut cpus = |apps: &[Limits], pod| limits(apps, pod).cpus(&HOST, &mut warnings).ok();
        assert_eq!(cpus(&[NONE], NONE), Some(4));
        assert_eq!(cpus(&[cpu(1500)], NONE), Some(2));
        assert_eq!(cpus(&[cpu(1500), cpu(1500)], NONE), Some(3));
        assert_eq!(cpus(&[cpu(1500), NONE], NONE), Some(4));
        assert_eq!(cpus(&[cpu(1500), NONE], cpu(2100)), Some(3));
        assert_eq!(cpus(&[cpu(500)], cpu(2100)), Some(1));
        assert_eq!(cpus(&[cpu(33_000)], NONE), None);
        assert_eq!(cpus(&[cpu(8000)], NONE), Some(8));
        assert_eq!(warnings.len(), 1, "more than the host has is told");
    }

    #[test]
    fn memory_has_room_for_all_apps_and_the_machine_and_no_more_than_the_pods() {
        let mut warnings = Vec::new();
        let mut mib =
            |apps: &[Limits], pod| limits(apps, pod).memory_mib(&HOST, &mut warnings).ok();
        assert_eq!(mib(&[NONE], NONE), Some(512));
        assert_eq!(mib(&[memory(256)], NONE), Some(320));
        assert_eq!(mib(&[memory(64), memory(64)], NONE), Some(192));
        assert_eq!(mib(&[memory(64), NONE], NONE), Some(576));
        assert_eq!(mib(&[memory(64), NONE], memory(800)), Some(864));
        assert_eq!(mib(&[memory(64), memory(64)], memory(100)), Some(164));
        assert_eq!(mib(&[memory(1 << 40)], NONE), None);
        assert_eq!(mib(&[memory(2048)], NONE), Some(2112));
        assert_eq!(warnings.len(), 1, "more than the host has is told");
    }

    #[test]
    fn host_caps_what_is_limited_exactly_and_memory_always() {
        let caps = |apps: &[Limits], pod| limits(apps, pod).caps(512, 2, apps.len(), false);
        assert_eq!(caps(&[cpu(500), cpu(250)], NONE).cpu_milli, Some(750));
        assert_eq!(caps(&[cpu(500), NONE], NONE).cpu_milli, None);
        assert_eq!(caps(&[cpu(500), NONE], cpu(600)).cpu_milli, Some(600));
        let caps = caps(&[NONE], NONE);
        assert_eq!(
            (caps.memory_bytes, caps.processes),
            // With six cards of two queues.
            (Some(584 << 20), Some(37 + 6 * 3))
        );
        assert!(limits(&[NONE], NONE).caps(512, 2, 1, true).memory_bytes > caps.memory_bytes);
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
