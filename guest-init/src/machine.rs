//! The machine before any app: kernel file systems, then what `Boot` says. Called by `main`, step by step.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guest_init::protocol::Card;
use netlink::{Netlink, Route};
use nix::time::{ClockId, clock_settime};
use nix::unistd::{chdir, chroot, sethostname};
use rustix::mount::{mount_bind, mount_move};

use crate::ioctls;
use crate::mount_table::MACHINE;

/// Moves off the first root file system, which an app's `pivot_root` could not leave, onto a bind mount of itself.
pub fn leave_first_root() -> Result<()> {
    mount_bind("/", "/root").context("bind / to /root")?;
    chdir("/root").context("enter /root")?;
    mount_move(".", "/").context("move /root to /")?;
    chroot(".").context("change root to the bind mount")
}

/// Mounts what PID 1 itself needs.
pub fn mount_kernel_file_systems() -> Result<()> {
    MACHINE.iter().try_for_each(|mount| mount.apply())
}

/// Sets the clock to `ns` nanoseconds since the epoch.
pub fn set_clock(ns: u64) -> Result<()> {
    clock_settime(ClockId::CLOCK_REALTIME, Duration::from_nanos(ns).into()).context("set the clock")
}

/// Seeds the kernel's random generator.
pub fn seed(entropy: &[u8]) -> Result<()> {
    let random = OpenOptions::new()
        .write(true)
        .open("/dev/urandom")
        .context("open /dev/urandom")?;
    ioctls::add_entropy(&random, entropy).context("seed the random generator")
}

/// Brings the first `cpus` CPUs online, among them the boot CPU, which always is, and all others offline.
pub fn set_cpus(cpus: u8) -> Result<()> {
    for cpu in 1..=u8::MAX {
        let switch = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        let online = cpu < cpus;
        match fs::write(&switch, if online { "1" } else { "0" }) {
            Err(error) if !online && error.kind() == ErrorKind::NotFound => return Ok(()),
            switched => switched.with_context(|| format!("switch CPU {cpu} by {switch}"))?,
        }
    }
    Ok(())
}

/// Names the pod.
pub fn set_hostname(name: &str) -> Result<()> {
    sethostname(name).with_context(|| format!("set the host name to {name:?}"))
}

/// Brings the loopback interface up; the kernel gives it its addresses.
pub fn bring_loopback_up() -> Result<()> {
    const LOOPBACK: u32 = 1;
    Netlink::open()?.set_up(LOOPBACK)
}

/// Brings the network cards up, with their addresses and routes.
pub fn join_networks(cards: &[Card], routes: &[(u8, Route)]) -> Result<()> {
    if cards.is_empty() {
        return Ok(());
    }
    let netlink = Netlink::open()?;
    let bring_up = |Card {
                        interface,
                        addresses,
                        neighbours,
                    }: &Card|
     -> Result<u32> {
        let index = netlink.interface(interface)?.index;
        netlink.use_all_queues(interface)?;
        netlink.set_up(index)?;
        let mut addresses = addresses.iter();
        addresses.try_for_each(|address| netlink.add_address(index, *address))?;
        let mut neighbours = neighbours.iter();
        neighbours.try_for_each(|neighbour| netlink.add_neighbour(index, *neighbour))?;
        Ok(index)
    };
    let indexes = cards.iter().map(|card| {
        bring_up(card).with_context(|| format!("bring network card {} up", card.interface))
    });
    let indexes = indexes.collect::<Result<Vec<_>>>()?;
    routes.iter().try_for_each(|(card, route)| {
        let index = indexes
            .get(usize::from(*card))
            .context("a route by no card")?;
        netlink.add_route(*index, route)
    })
}

/// Sets a kernel parameter, by its path below /proc/sys.
pub fn set_parameter(name: &str, value: &str) -> Result<()> {
    let climbs = |part: &str| matches!(part, "" | "." | "..");
    ensure!(
        !name.split('/').any(climbs),
        "{name:?} names no kernel parameter"
    );
    fs::write(format!("/proc/sys/{name}"), value)
        .with_context(|| format!("set kernel parameter {name} to {value:?}"))
}

/// Opens a disk of the machine for reading.
pub fn open_disk(path: &str) -> Result<File> {
    File::open(path).with_context(|| format!("open disk {path}"))
}
