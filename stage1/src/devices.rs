//! The machine of a pod: which devices lie in which slot.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use guest_init::protocol::{Cache, IMAGE_SLOT_BYTES, IMAGE_SLOTS};
use vmm::NoVm;
use vmm::device::Device;
use vmm::disk::{Disk, Extent, Extents};
use vmm::fs::{Fs, Share, Trust};
use vmm::layout::Slot;
use vmm::machine::{Config, Devices, Machine};
use vmm::mem::{Mem, Size};
use vmm::net::{self, Limit, Meter, Net};
use vmm::vsock::Vsock;
use vmm_sys_util::eventfd::EventFd;

use crate::assets::Assets;
use crate::growth::Growth;
use crate::jail::files_of_guest;
use crate::jail::shares::SHARES;
use crate::network::Cable;
use crate::plan::{Plan, PreparedImage, PreparedRoot};
use crate::reserves::image_extents;
use crate::streams::Ports;

/// Every pod's guest has the same context id: it is alone on its vsock.
const GUEST_CID: u64 = 3;

/// A machine, and what others look at of its devices.
pub struct Made {
    /// The machine.
    pub machine: Machine,
    /// Becomes true when the host's disk was full.
    pub disk_full: Arc<AtomicBool>,
    /// What the images disk holds.
    pub images: Extents,
    /// Size of the memory that is plugged, if it can grow.
    pub size: Option<Size>,
}

/// The machine of `plan`, whose guest finds `ports` on its host; it signals `resized` when its memory grows or shrinks.
///
/// # Errors
/// When the host lacks what the machine needs.
pub fn machine(
    assets: Assets,
    plan: &Plan,
    ports: &Ports,
    descriptors: Option<File>,
    resized: &EventFd,
) -> Result<Made> {
    let ports = ports.clone();
    let scratch = scratch_disk(assets.scratch, plan.scratch_bytes)?;
    let disk_full = scratch.host_full();
    let images = images(assets.images)?;
    let images_disk = Disk::read_only(images.clone(), "images");
    let mut devices = Devices::from([
        (Slot::ImagesDisk, boxed(images_disk)),
        (Slot::ScratchDisk, boxed(scratch)),
        (
            Slot::Vsock,
            boxed(Vsock::new(
                GUEST_CID,
                Box::new(move |port| ports.take(port)),
            )),
        ),
    ]);
    let limit = Limit {
        bytes: plan.network_bytes,
        frames: None,
    };
    let meters = [Meter::new(limit), Meter::new(limit)];
    for (number, card) in (0..).zip(assets.cards) {
        let parts = match card.cable {
            Cable::Taps(taps) => net::card(taps, card.mac, card.mtu, &meters)
                .context("share a network card's queues")?,
            Cable::Passt(passt) => {
                let meters = meters.clone();
                boxed(Net::new(Box::new(passt), card.mac, card.mtu, meters))
            }
        };
        devices.insert(Slot::Net(number), parts);
    }
    if let Some(descriptors) = descriptors {
        add_shared_folders(&mut devices, &plan.boot.shares, &descriptors)
            .context("share folders of the host")?;
    }
    let Growth { start, most, .. } = &plan.growth;
    let pluggable_mib = plan.growth.pluggable_mib();
    let mut size = None;
    if pluggable_mib > 0 {
        let resized = resized.try_clone().context("share an event")?;
        let memory = Mem::new(start.memory_mib, pluggable_mib, resized);
        size = Some(memory.size());
        devices.insert(Slot::Mem, boxed(memory));
    }
    let config = Config {
        cpus: most.cpus,
        memory_mib: start.memory_mib,
        pluggable_mib,
        kernel: assets.kernel,
        initramfs: assets.initramfs,
        debug: plan.boot.debug,
        console: plan
            .boot
            .debug
            .then(|| Box::new(std::io::stderr()) as Box<_>),
        extra_command_line: plan.kernel_parameters.clone(),
    };
    let machine = Machine::new(&assets.kvm, config, devices);
    let machine = machine.map_err(|error| match error.is::<NoVm>() {
        true => error,
        false => error.context(
            "make the machine from vmlinux and initramfs of the stage 1 image (--stage1 chooses another)",
        ),
    })?;
    Ok(Made {
        machine,
        disk_full,
        images,
        size,
    })
}

/// A device in one part.
fn boxed(device: impl Device + 'static) -> Vec<Box<dyn Device>> {
    vec![Box::new(device)]
}

/// The host's folders, as a file system for each way to keep them. The process's root holds nothing else that could be
/// reached, and its descriptors are for all.
fn add_shared_folders(devices: &mut Devices, caches: &[Cache], descriptors: &File) -> Result<()> {
    let max_descriptors = files_of_guest()? / u64::try_from(caches.len().max(1))?;
    for cache in caches {
        let trust = match cache {
            Cache::Auto => Trust::Briefly,
            Cache::Always => Trust::Always,
            Cache::None => Trust::Never,
        };
        let share = Share {
            root: SHARES.to_owned(),
            own_descriptors: descriptors.try_clone()?,
            max_descriptors,
            trust,
        };
        devices.insert(Slot::Fs(trust), boxed(Fs::new(cache.name(), share)?));
    }
    Ok(())
}

/// All images on one read-only disk of constant size, each in its own slot.
fn images(images: Vec<PreparedImage>) -> Result<Extents> {
    let images = images.into_iter().filter_map(|image| match image.root {
        PreparedRoot::Erofs { files, .. } => Some(files),
        PreparedRoot::Folder(_) => None,
    });
    let mut extents = Vec::new();
    for (number, files) in (0..).zip(images) {
        extents.extend(image_extents(number, files)?.0);
    }
    let capacity = IMAGE_SLOT_BYTES * u64::from(IMAGE_SLOTS);
    Extents::new(extents, capacity).context("lay out the images disk")
}

/// The pod's scratch disk; one of no size where writable layers are in memory, for the machine is the same.
fn scratch_disk(file: Option<File>, bytes: Option<u64>) -> Result<Disk> {
    let bytes = bytes.unwrap_or(0);
    let extent = file.map(|file| Extent {
        offset: 0,
        bytes,
        file,
    });
    let extents = Extents::new(extent.into_iter().collect(), bytes);
    let extents = extents.context("lay out the scratch disk")?;
    Ok(Disk::writable(extents, "scratch"))
}
