//! How far the machine of a pod grows whose apps come and go, and how far it has to for those that are there.

use anyhow::{Result, ensure};
use guest_init::protocol::Limits;
use serde::{Deserialize, Serialize};

use crate::sizes::{
    DEFAULT_MEMORY_MIB, MEMORY_OVERHEAD_MIB, Machine, PodLimits, TABLES_PART, cpu_milli,
};

/// What Linux keeps of each block of memory that it is given, for tables, MiB.
const BLOCK_MIB: u64 = 128;
const TABLES_MIB: u64 = 2;

/// The least that Linux plugs of a block, MiB.
const PIECE_MIB: u64 = 4;

/// A machine that grows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Growth {
    /// What it begins as.
    pub start: Machine,
    /// The most that it becomes.
    pub most: Machine,
    /// What the host caps its process at in the beginning.
    pub caps: Limits,
}

/// What it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grown {
    /// CPUs.
    pub cpus: u8,
    /// Memory that is plugged, MiB.
    pub plugged_mib: u32,
    /// What the host caps its process at, but for disks.
    pub caps: Limits,
}

impl Growth {
    /// The most memory that can be plugged, MiB.
    pub fn pluggable_mib(&self) -> u32 {
        self.plugged_mib(self.most.memory_mib.into())
    }

    /// Memory that must be plugged for the machine to have `mib`: its tables are in what it is given.
    fn plugged_mib(&self, mib: u64) -> u32 {
        let more = mib.saturating_sub(self.start.memory_mib.into());
        let tables = more.div_ceil(BLOCK_MIB - TABLES_MIB) * TABLES_MIB;
        // No more than a machine has, so that it fits.
        u32::try_from((more + tables).next_multiple_of(PIECE_MIB)).unwrap_or(0)
    }

    /// What the machine has to be for the apps of `limits`.
    ///
    /// # Errors
    /// When there is no room for the one of them that is limited to `app`, with the figures.
    pub fn for_apps(
        &self,
        limits: &PodLimits,
        app: &Limits,
        warnings: &mut Vec<String>,
    ) -> Result<Grown> {
        let Self { start, most, caps } = self;
        let (bytes, unlimited) = limits.of_apps(|limits| limits.memory_bytes);
        let (promised_milli, _) = limits.of_apps(cpu_milli);
        let promised_mib = bytes.div_ceil(1 << 20);
        self.check_room(app, promised_mib, promised_milli, warnings)?;
        let most_mib = u64::from(most.memory_mib);
        let most_milli = u64::from(most.cpus) * 1000;
        // For all without a limit there is something, too.
        let beside_mib = if unlimited {
            DEFAULT_MEMORY_MIB
        } else {
            MEMORY_OVERHEAD_MIB
        };
        let plugged_mib = self.plugged_mib((promised_mib + beside_mib).min(most_mib));
        // For all that may ever be plugged: the host keeps tables of what is given back.
        let tables_mib = u64::from(self.pluggable_mib()) / TABLES_PART;
        let more_bytes = (u64::from(plugged_mib) + tables_mib) << 20;
        let milli = cpu_milli(&limits.pod).map_or(most_milli, |most| most.min(most_milli));
        let milli = u32::try_from(promised_milli.min(milli))?;
        Ok(Grown {
            cpus: u8::try_from(milli.div_ceil(1000))?.max(start.cpus),
            plugged_mib,
            caps: Limits {
                memory_bytes: caps.memory_bytes.map(|bytes| bytes + more_bytes),
                cpu_milli: caps.cpu_milli.map(|begins| begins.max(milli)),
                processes: caps.processes,
                ..Limits::default()
            },
        })
    }

    /// Refuses the app that has a limit of more than there is room for, beside those whose limits make up what is `promised`.
    fn check_room(
        &self,
        app: &Limits,
        promised_mib: u64,
        promised_milli: u64,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let most = &self.most;
        let most_mib = u64::from(most.memory_mib);
        let most_milli = u64::from(most.cpus) * 1000;
        if let Some(own) = app.memory_bytes {
            let (own_mib, room_mib) = (own.div_ceil(1 << 20), most_mib - MEMORY_OVERHEAD_MIB);
            ensure!(
                promised_mib <= room_mib,
                "its limit of {own_mib} MiB does not fit: the pod's machine has at most {room_mib} MiB for apps, and {} MiB \
                 are promised to others; give it less, remove another, or start a pod with more (app sandbox \
                 --max-memory)",
                promised_mib - own_mib
            );
        }
        if let Some(own) = cpu_milli(app) {
            ensure!(
                own <= most_milli,
                "its limit of {own}m CPUs does not fit: the pod's machine has at most {}; give it less, or start a pod with \
                 more (app sandbox --max-cpu)",
                most.cpus
            );
            if promised_milli > most_milli {
                warnings.push(format!(
                    "the apps' limits of CPUs are {promised_milli}m together, and the pod's machine has at most {}: they \
                     will share",
                    most.cpus
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes::tests::{HOST, NONE, cpu, limits, memory};

    fn machine(cpus: u8, memory_mib: u32) -> Machine {
        Machine { cpus, memory_mib }
    }

    fn growth(most: Machine) -> Growth {
        Growth {
            start: machine(1, 364),
            most,
            caps: Limits {
                memory_bytes: Some(500 << 20),
                cpu_milli: Some(500),
                ..NONE
            },
        }
    }

    #[test]
    fn machine_grows_by_what_its_apps_are_promised_and_its_tables() {
        let growth = growth(machine(3, 364 + 1000));
        let pod = cpu(2500);
        let grown = |apps: &[Limits]| {
            let grown = growth.for_apps(&limits(apps, pod), &NONE, &mut vec![]);
            let grown = grown.expect("room");
            let caps = grown.caps;
            let cap_mib = caps.memory_bytes.expect("a cap") >> 20;
            (grown.cpus, grown.plugged_mib, cap_mib, caps.cpu_milli)
        };
        // With 15 MiB of the host's tables for all that there may be.
        assert_eq!(grown(&[]), (1, 0, 515, Some(500)));
        assert_eq!(grown(&[memory(300), cpu(700)]).0, 1);
        assert_eq!(grown(&[memory(300), cpu(1000)]).3, Some(1000));
        assert_eq!(grown(&[memory(301)]), (1, 4, 519, Some(500)));
        // 100 MiB, and 2 for the tables of the block.
        assert_eq!(grown(&[memory(400)]), (1, 104, 619, Some(500)));
        // Two blocks.
        assert_eq!(grown(&[memory(430)]).1, 136);
        // One without a limit is given as much as it would have in a pod of its own, as far as there is room.
        assert_eq!(grown(&[memory(100), NONE]).1, 252);
        assert_eq!(grown(&[memory(900), NONE]).1, 1016);
        assert_eq!(grown(&[cpu(1500), cpu(700)]), (3, 152, 667, Some(2200)));
        assert_eq!(grown(&[cpu(1500), cpu(1500)]), (3, 152, 667, Some(2500)));
    }

    #[test]
    fn app_that_the_machine_has_no_room_for_is_refused_with_the_figures() {
        let growth = growth(machine(2, 512));
        let mut warnings = Vec::new();
        let mut refused = |apps: &[Limits]| {
            let last = apps.last().expect("the app that is added");
            let grown = growth.for_apps(&limits(apps, NONE), last, &mut warnings);
            grown
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert_eq!(refused(&[memory(200), memory(248)]), "");
        let error = refused(&[memory(200), memory(249)]);
        let figures = ["249", "448", "200"];
        assert!(
            figures.iter().all(|figure| error.contains(figure)),
            "{error}"
        );
        assert_eq!(refused(&[memory(1000), NONE]), "");
        assert_eq!(refused(&[cpu(1500), cpu(1500)]), "");
        assert!(refused(&[cpu(2001)]).contains("2001m"));
        assert_eq!(warnings.len(), 1, "that they share is told");
    }

    #[test]
    fn pod_grows_up_to_its_limits_or_the_hosts_memory_if_apps_come_later() {
        let bounds = |begins, pod| {
            let growth = limits(&[NONE], pod).growth(begins, &HOST, false, &mut vec![]);
            let growth = growth.expect("a machine");
            (growth.start, growth.most)
        };
        let start = machine(4, 512);
        assert_eq!(bounds(None, NONE), (start, start));
        assert_eq!(bounds(Some(NONE), NONE), (start, machine(4, 1024)));
        let (small, large) = (machine(4, 364), machine(4, 2112));
        assert_eq!(bounds(Some(memory(300)), memory(2048)), (small, large));
        let (one, six) = (machine(1, 512), machine(6, 1024));
        assert_eq!(bounds(Some(cpu(500)), cpu(6000)), (one, six));
        assert_eq!(bounds(Some(cpu(500)), cpu(99_000)).1.cpus, 32);
    }
}
