//! Boots a kernel with an initramfs, prints its console and how it ended: `boot [-c CPUS] [-m MIB] [-a APPEND]
//! [-d READ_ONLY_DISK] [-s SCRATCH_DISK] [-q] KERNEL INITRAMFS`.

use std::fs::File;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use kvm_ioctls::Kvm;
use vmm::disk::{Disk, Extent, Extents};
use vmm::layout::Slot;
use vmm::machine::{Config, Devices, Machine};

fn open(path: &str) -> Result<File> {
    File::open(path).with_context(|| format!("open {path}"))
}

fn extents(file: File) -> Result<Extents> {
    let bytes = file.metadata()?.len();
    Extents::new(
        vec![Extent {
            offset: 0,
            bytes,
            file,
        }],
        bytes,
    )
}

fn main() -> Result<()> {
    let (mut cpus, mut memory_mib, mut append, mut quiet) = (1, 256, String::new(), false);
    let (mut devices, mut files) = (Devices::new(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .with_context(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "-c" => cpus = value()?.parse()?,
            "-m" => memory_mib = value()?.parse()?,
            "-a" => append = value()?,
            "-q" => quiet = true,
            "-d" => drop(devices.insert(
                Slot::ImagesDisk,
                Box::new(Disk::read_only(extents(open(&value()?)?)?, "images")),
            )),
            "-s" => drop(devices.insert(
                Slot::ScratchDisk,
                Box::new(Disk::writable(
                    extents(File::options().read(true).write(true).open(value()?)?)?,
                    "scratch",
                )),
            )),
            _ => files.push(argument),
        }
    }
    let [kernel, initramfs] = files.as_slice() else {
        bail!("usage: boot [OPTIONS] KERNEL INITRAMFS")
    };
    let start = Instant::now();
    let config = Config {
        cpus,
        memory_mib,
        kernel: open(kernel)?,
        initramfs: open(initramfs)?,
        debug: !quiet,
        console: Some(Box::new(std::io::stdout())),
        extra_command_line: append,
    };
    let machine = Machine::new(&Kvm::new().context("open /dev/kvm")?, config, devices)?;
    let built = start.elapsed();
    let ended = machine.start(|_| Ok(()))?.wait();
    println!(
        "built in {built:?}, ended after {:?}: {}\n{:#?}",
        start.elapsed(),
        ended.end,
        ended.exits
    );
    if let vmm::end::End::KvmFailed { registers, .. } = &ended.end {
        println!("{registers}");
    }
    Ok(())
}
