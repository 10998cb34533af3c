//! The boot recipe: from /dev/kvm, a kernel and devices to a machine ready for its first instruction. Everything that
//! opens, allocates or creates happens here, on the caller's thread and one that loads the kernel meanwhile, before any other runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::thread::{self, Builder};

use anyhow::{Context, Result, anyhow, ensure};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};

use crate::bus::Bus;
use crate::console::Console;
use crate::device::Device;
use crate::end::EndNote;
use crate::layout::{IDENTITY_MAP, MAX_CPUS, SLOTS, Slot, TSS};
use crate::memory::{self, GuestMemory};
use crate::mmio::transport::{Server, wire};
use crate::running::{STACK_BYTES, ThreadKind};
use crate::vcpu::{self, Vcpu};
use crate::vm;
use crate::x86_64::boot_params::{self, Kernel, Placed};
use crate::x86_64::{cpuid, entry, mptable, msrs};

/// What a machine is made of, devices apart.
pub struct Config {
    /// CPUs that may ever run, 1 to [`MAX_CPUS`]; the kernel starts the first one only.
    pub cpus: u8,
    /// RAM, MiB.
    pub memory_mib: u32,
    /// The most that a memory device may add to it, MiB.
    pub pluggable_mib: u32,
    /// An uncompressed ELF kernel.
    pub kernel: File,
    /// Its first root file system, a cpio archive.
    pub initramfs: File,
    /// Whether the kernel tells everything it does.
    pub debug: bool,
    /// Where the console goes besides the last words.
    pub console: Option<Box<dyn Write + Send>>,
    /// Appended to the kernel's command line; empty in a machine to be cloned.
    pub extra_command_line: String,
}

/// Which device is in which slot, each in its parts.
pub type Devices = BTreeMap<Slot, Vec<Box<dyn Device>>>;

/// A machine that has not run yet.
pub struct Machine {
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) servers: Vec<(ThreadKind, Server)>,
    // After the vCPUs.
    pub(crate) shared: Shared,
}

/// What is a machine's, but no thread's alone.
pub(crate) struct Shared {
    pub(crate) bus: Arc<Bus>,
    pub(crate) note: Arc<EndNote>,
    _vm: VmFd,
    // Last: the VM uses it until it is gone.
    _memory: GuestMemory,
}

/// What this crate asks of KVM, by name.
const CAPABILITIES: [(Cap, &str); 7] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

impl Machine {
    /// Builds the machine. KVM ties it to this process: no fork between here and its end.
    ///
    /// # Errors
    /// When the host lacks memory, descriptors or a part of KVM, or the kernel is none or does not fit.
    pub fn new(kvm: &Kvm, mut config: Config, devices: Devices) -> Result<Self> {
        check(kvm, &config)?;
        vcpu::register_kick()?;

        // 1. The VM, and RAM with what is loaded into it.
        let memory = memory::map(config.memory_mib, config.pluggable_mib)?;
        let (vm, kernel, initramfs) = create_and_load(kvm, &memory, &mut config)?;

        // 2. The VM's two private areas are fixed before the first vCPU.
        vm.set_identity_map_address(IDENTITY_MAP)
            .context("set identity map address")?;
        vm.set_tss_address(TSS).context("set TSS address")?;
        memory::register(&vm, &memory)?;

        // 3. The interrupt controllers: before any vCPU, which gets its local APIC from them, and any irqfd. No PIT.
        vm.create_irq_chip()
            .context("create interrupt controllers")?;

        // 4. Devices in their slots.
        let mut slots = [const { None }; SLOTS];
        let mut servers = Vec::new();
        let mut present = Vec::new();
        for (slot, parts) in devices {
            let index = slot
                .index()
                .with_context(|| format!("{slot:?}: no such slot"))?;
            let (transport, own) =
                wire(&vm, index, parts, &memory).with_context(|| format!("{slot:?}"))?;
            slots[usize::from(index)] = Some(Mutex::new(transport));
            servers.extend(own.into_iter().map(|server| (ThreadKind::of(slot), server)));
            present.push(index);
        }

        // 5. What else the kernel finds in memory.
        let line = boot_params::command_line(present, config.debug, &config.extra_command_line)?;
        boot_params::write(&memory, config.memory_mib, &line, initramfs)?;
        mptable::write(&memory, config.cpus)?;
        entry::write_tables(&memory)?;

        // 6. vCPUs, all of them: later the jail forbids it. The first starts at the kernel's entry, the others wait for
        //    its INIT.
        let console = Mutex::new(Console::new(config.console));
        let bus = Arc::new(Bus { console, slots });
        let note = Arc::new(EndNote::new().context("create end event")?);
        let vcpus = create_vcpus(kvm, &vm, config.cpus, kernel.entry)?
            .into_iter()
            .map(|fd| Vcpu::new(fd, bus.clone(), note.clone()))
            .collect();
        Ok(Self {
            vcpus,
            servers,
            shared: Shared {
                bus,
                note,
                _vm: vm,
                _memory: memory,
            },
        })
    }
}

fn check(kvm: &Kvm, config: &Config) -> Result<()> {
    for (capability, name) in CAPABILITIES {
        ensure!(
            kvm.check_extension(capability),
            "this host's KVM lacks {name}"
        );
    }
    let cpus = config.cpus;
    ensure!(
        (1..=MAX_CPUS).contains(&cpus),
        "{cpus} CPUs: a machine has 1 to {MAX_CPUS}"
    );
    let most = kvm.get_max_vcpus();
    ensure!(
        usize::from(cpus) <= most,
        "{cpus} CPUs: this host's KVM allows {most}"
    );
    Ok(())
}

/// Creates the VM while another thread loads kernel and initramfs: the host's kernel spends most of a creation waiting for
/// an RCU grace period.
fn create_and_load(
    kvm: &Kvm,
    memory: &GuestMemory,
    config: &mut Config,
) -> Result<(VmFd, Kernel, Placed)> {
    let (mib, file, initramfs) = (config.memory_mib, &mut config.kernel, &mut config.initramfs);
    let load = || -> Result<_> {
        let kernel = boot_params::load_kernel(memory, mib, file)?;
        let initramfs = boot_params::load_initramfs(memory, mib, kernel, initramfs)?;
        Ok((kernel, initramfs))
    };
    thread::scope(|scope| {
        let loading = Builder::new()
            .name("load".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, load)
            .context("start the thread that loads the kernel")?;
        let vm = vm::create(kvm);
        let loaded = loading.join();
        let (kernel, initramfs) = loaded.map_err(|_| anyhow!("loading the kernel panicked"))??;
        Ok((vm?, kernel, initramfs))
    })
}

fn create_vcpus(kvm: &Kvm, vm: &VmFd, cpus: u8, start: u64) -> Result<Vec<VcpuFd>> {
    let supported = cpuid::supported(kvm)?;
    let create = |id: u8| -> Result<VcpuFd> {
        let vcpu = vm.create_vcpu(id.into()).context("create")?;
        let cpuid = cpuid::for_vcpu(&supported, id, cpus)?;
        vcpu.set_cpuid2(&cpuid).context("set CPUID")?;
        msrs::set_xcr0(&vcpu, &cpuid)?;
        msrs::set(&vcpu)?;
        if id == 0 {
            entry::set_registers(&vcpu, start)?;
        }
        Ok(vcpu)
    };
    (0..cpus)
        .map(|id| create(id).with_context(|| format!("vCPU {id}")))
        .collect()
}
