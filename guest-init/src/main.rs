//! PID 1 of the guest: makes the machine ready, runs the pod's apps, ends the machine.
//!
//! One process, one thread. Before the supervision loop an error is told to the host and on the console and ends the
//! machine; in the loop nothing returns early.

mod account;
mod app_files;
mod app_root;
mod app_view;
mod built_in;
mod cgroup;
mod command;
mod console;
mod control;
mod device_rule;
mod disks;
mod ending;
mod fault;
mod flow;
mod furnish;
mod host;
mod interpreter;
mod ioctls;
mod launch;
mod machine;
mod mount_table;
mod place;
mod pod_namespace;
mod privileges;
mod process;
mod processes;
mod pump;
mod removal;
mod report;
mod stdio;
mod streams;
mod supervisor;
mod syslog;
mod task;
mod volumes;

use std::fs::File;

use anyhow::{Context, Result, bail};
use guest_init::protocol::{
    self, Boot, CONTROL_PORT, END_INIT_FAILED, END_POWERED_OFF, ToGuest, ToHost,
};

use crate::control::Control;
use crate::supervisor::{Ending, Supervisor};

fn main() {
    console::take_panics();
    match live() {
        Ok(Ending::PoweredOff) => ending::end(END_POWERED_OFF),
        Ok(Ending::HostGone) => ending::end(END_INIT_FAILED),
        Err(error) => {
            console::say(&format!("{error:#}"));
            ending::end(END_INIT_FAILED)
        }
    }
}

/// The machine's life.
fn live() -> Result<Ending> {
    // Nothing here depends on the pod: a clone of a booted machine starts at the greeting.
    process::block_signals().context("block the signals")?;
    machine::leave_first_root()?;
    machine::mount_kernel_file_systems()?;
    machine::bring_loopback_up()?;
    cgroup::prepare()?;

    let mut stream = host::dial(CONTROL_PORT)?;
    let boot = greet(&mut stream)?;
    if let Err(error) = become_pod(&boot) {
        farewell(&mut stream, &error);
        return Err(error);
    }
    host::never_wait(&stream).context("prepare the control stream")?;
    let ending = Supervisor::new(Control::new(stream), boot.debug)?.run();

    // After the loop, so that no app writes any more.
    if let Err(error) = disks::settle_scratch(boot.scratch) {
        console::say(&format!("{error:#}"));
    }
    Ok(ending)
}

/// Says hello and is told what machine this is.
fn greet(stream: &mut File) -> Result<Boot> {
    protocol::send(
        &mut *stream,
        &ToHost::Hello {
            version: protocol::VERSION,
        },
    )
    .context("greet the host")?;
    match protocol::receive(stream).context("hear the host's first message")? {
        Some(ToGuest::Boot(boot)) => Ok(*boot),
        other => bail!("the host's first message is not Boot but {other:?}"),
    }
}

/// Makes the booted machine this pod's.
fn become_pod(boot: &Boot) -> Result<()> {
    // The clock and the seed first: everything after may ask for them.
    machine::set_clock(boot.clock_ns)?;
    machine::seed(&boot.entropy)?;
    machine::set_cpus(boot.cpus)?;
    machine::set_hostname(&boot.hostname)?;
    app_files::keep(boot)?;
    // Parameters may forbid what networks need, as addresses of IPv6.
    machine::join_networks(&boot.cards, &boot.routes)?;
    for (name, value) in &boot.sysctls {
        machine::set_parameter(name, value)?;
    }
    disks::mount_scratch(boot.scratch)?;
    cgroup::limit_pod(&boot.limits)?;
    boot.shares
        .iter()
        .copied()
        .try_for_each(volumes::mount_shares)
}

/// Tells the host why the machine ends, and waits until it has read that and closed the stream or spoken.
fn farewell(stream: &mut File, error: &anyhow::Error) {
    let failed = ToHost::Failed {
        reason: format!("{error:#}"),
    };
    if protocol::send(&mut *stream, &failed).is_ok() {
        // Messages sent earlier come first; the answer, or the stream's end, says that it has heard.
        while let Ok(Some(message)) = protocol::receive::<ToGuest>(&mut *stream) {
            if message == ToGuest::PowerOff {
                break;
            }
        }
    }
}
