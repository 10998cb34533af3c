//! The `run` entrypoint: a pod manifest and prepared images in, an exit code out, in one process that becomes the VMM.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use contract::pod_dir::LOCK_FD_VARIABLE;
use contract::{PodDir, PodManifest, RunArguments};
use guest_init::protocol::{App, Boot, CONTROL_PORT, Stdio, TaskId};
use nix::sys::signalfd::SignalFd;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::rand::{GetRandomFlags, getrandom};
use vmm_sys_util::eventfd::EventFd;

use crate::app::Runtime;
use crate::assets::{self, Assets};
use crate::cgroup::{self, Cgroup};
use crate::clients::Clients;
use crate::control::Control;
use crate::devices::{self, Made};
use crate::environment;
use crate::host;
use crate::jail::seccomp::{self, Kind};
use crate::jail::{self, Identity, shares};
use crate::life::{self, Life};
use crate::names::Names;
use crate::network::{self, Networks, Way};
use crate::outcome;
use crate::plan::{Host, KERNEL_PARAMETERS, Plan};
use crate::report::{self, Report};
use crate::reserves::Reserves;
use crate::session::{self, Session};
use crate::streams::{self, Input, Ports, Pumps, Sharing};
use crate::terminal::{self, Raw};
use crate::timings::Timings;

/// Bytes of entropy given to the guest.
const ENTROPY_BYTES: usize = 64;

/// Runs the pod in the working directory; returns its exit code.
///
/// # Errors
/// For everything that keeps the pod from running; nothing of it is left behind but its directory and, for `gc`, an empty
/// cgroup and, if its jail could not be shut, its networks.
pub fn run(argv: impl IntoIterator<Item = String>) -> Result<u8> {
    let timings = Timings::default();
    timings.mark("stage1");
    let argv: Vec<_> = argv.into_iter().collect();
    let arguments = RunArguments::parse(argv.iter().cloned())?;
    // Let go of by the kernel alone, when the process is gone.
    let _lock = ManuallyDrop::new(take_lock()?);
    let pod = PodDir::new(
        std::env::current_dir().context("find the pod directory (the working directory)")?,
    );

    let cpus = host::cpus();
    // To get there takes the process longer than all that comes before its jail, most of it waiting.
    let mut cgroup = Cgroup::enter(&pod, &arguments.uuid);

    let mut prepared = Prepared::open(&pod, &arguments, cpus)?;
    if Way::of(&arguments, nix::unistd::geteuid().is_root()) == Way::User {
        network::user::make_room(&mut prepared.plan.growth.caps);
        cgroup = cgroup.and_then(|mut cgroup| cgroup.arrive().map(|()| cgroup));
    }
    let networks = network::set_up(
        &pod,
        &arguments,
        &prepared.manifest,
        &prepared.assets.images,
        prepared.plan.growth.start.cpus,
    )?;
    let _reserved = prepared.join(networks, arguments.mds_token.as_deref());

    let become_pod = || Becoming::new(&pod, argv, &prepared.plan, &mut cgroup);
    let mut becoming = become_pod().inspect_err(|_| network::give_up(&pod, &arguments.uuid))?;
    // From here on nobody but the `gc` entrypoint can take networks down.
    let inside = jail::enter(&pod, &mut becoming.identity, &prepared.plan);
    let inside = inside.context("jail the machine's process")?;
    if let Some(warning) = cgroup::arrive(cgroup, &prepared.plan.growth.caps) {
        crate::tell(&format!("warning: {warning}"));
    }
    timings.mark("jailed");

    let report = Report::new(inside.report);
    let code = prepared.live(becoming, report.clone(), inside.descriptors, &timings);
    let code = code.unwrap_or_else(|error| {
        crate::tell(&format!("{error:#}"));
        life::FAILED
    });
    if let Err(error) = report.exit_code(code) {
        crate::tell(&format!("{error:#}"));
    }
    Ok(code)
}

/// The process when it is the pod, before its jail.
struct Becoming {
    /// Its uid is its own as long as this is there.
    identity: Identity,
    clients: Clients,
    signals: SignalFd,
}

impl Becoming {
    fn new(
        pod: &PodDir,
        argv: Vec<String>,
        plan: &Plan,
        cgroup: &mut Result<Cgroup>,
    ) -> Result<Self> {
        if let Ok(cgroup) = cgroup {
            cgroup.cap(pod, &plan.growth.caps, &plan.shares);
        }
        let identity = Identity::claim(pod.path(), plan)?;
        Report::prepare(pod, identity.owner())?;
        if plan.mutable {
            Runtime::write(pod, argv, plan)?;
        }
        let clients = Clients::listen(&PodDir::new("").socket())?;
        // Who finds a pid finds the socket too.
        report::write_pid(pod)?;
        let signals = session::block_signals()?;
        Ok(Self {
            identity,
            clients,
            signals,
        })
    }
}

/// What a pod's machine is made of. What can fail for the user's reasons comes first, and as long as everything can still be
/// opened.
struct Prepared {
    assets: Assets,
    manifest: PodManifest,
    /// Whether apps ask the name servers of networks.
    resolv_of_networks: bool,
    plan: Plan,
}

impl Prepared {
    fn open(pod: &PodDir, arguments: &RunArguments, cpus: u64) -> Result<Self> {
        let manifest: PodManifest = assets::read_json(&pod.manifest())?;
        let mut assets = Assets::open(pod, &manifest)?;
        let host = Host {
            cpus,
            memory_mib: host::memory_mib(),
            kvm_cpus: assets.kvm.get_max_vcpus() as u64,
            root: nix::unistd::geteuid().is_root(),
            window: terminal::window(),
            kernel_parameters: std::env::var(KERNEL_PARAMETERS).unwrap_or_default(),
        };
        let mut plan = Plan::new(&manifest, &assets.images, arguments, &host)
            .with_context(|| format!("read {}", pod.manifest().display()))?;
        plan.warnings
            .iter()
            .for_each(|warning| crate::tell(&format!("warning: {warning}")));
        host::check_kvm(&assets.kvm)?;
        shares::check(&plan.shares)?;
        let names = Names::read(pod, arguments, &plan.boot.hostname)?;
        (plan.boot.resolv, plan.boot.hosts) = (names.resolv, names.hosts);
        let is_anothers = plan.apps.iter().any(|app| app.built_in);
        let scratch = plan.scratch_bytes.map(|bytes| match is_anothers {
            true => assets::open_scratch_disk(pod),
            false => assets::make_scratch_disk(pod, bytes),
        });
        assets.scratch = scratch.transpose()?;
        Ok(Self {
            assets,
            manifest,
            resolv_of_networks: names.of_networks,
            plan,
        })
    }

    /// Puts the pod on its networks; gives what is to stay for as long as it runs.
    fn join(&mut self, networks: Networks, mds_token: Option<&str>) -> Vec<OwnedFd> {
        let Plan {
            boot,
            apps,
            environment,
            ..
        } = &mut self.plan;
        boot.cards = networks
            .cards
            .iter()
            .map(|card| card.told.clone())
            .collect();
        boot.routes = networks.routes;
        let resolv = networks.resolv.filter(|_| self.resolv_of_networks);
        boot.resolv = boot.resolv.take().or(resolv);
        self.assets.cards = networks.cards;
        match (mds_token, networks.host) {
            (Some(token), Some(host)) => {
                let url = network::metadata_url(host, token);
                environment.push(("AC_METADATA_URL".into(), url));
            }
            (Some(_), None) => crate::tell(
                "warning: AC_METADATA_URL is not set: on these networks the pod does not reach its host",
            ),
            (None, _) => {}
        }
        for app in apps {
            environment::set(&mut app.environment, environment);
        }
        networks.reserved
    }

    /// Makes the machine in the jail, where all that it needs is open, and is with it until it has ended; returns the pod's exit
    /// code.
    fn live(
        self,
        becoming: Becoming,
        report: Report,
        descriptors: Option<File>,
        timings: &Timings,
    ) -> Result<u8> {
        let Self {
            assets, mut plan, ..
        } = self;
        let Becoming {
            identity: _identity,
            clients,
            signals,
        } = becoming;
        let ports = Ports::default();
        let control = Control::new(ports.open(CONTROL_PORT)?)?;
        let drained = streams::drained_event()?;
        let Made {
            machine,
            disk_full,
            images,
            size,
        } = devices::machine(assets, &plan, &ports, descriptors, &drained)?;
        let on_terminal = |app: &App| matches!(app.stdio, Stdio::Terminal { .. });
        let _raw = (plan.apps.iter().any(on_terminal) && terminal::window().is_some())
            .then(Raw::enter)
            .transpose()?;
        let pumps = pumps(&plan, &ports, &drained, &report)?;
        let reserves = plan
            .mutable
            .then(|| Reserves::new(&ports, &drained, images, &plan))
            .transpose()?;
        timings.mark("kvm_run");
        let running = machine
            .start(|kind| seccomp::confine_thread(Kind::Machine(kind)))
            .context("start the machine")?;
        let deadline = plan
            .timeout
            .and_then(|timeout| Instant::now().checked_add(timeout));
        complete(&mut plan.boot)?;
        let session = Session {
            life: Life::new(plan.boot, plan.apps, plan.stopping, plan.mutable),
            control,
            ports,
            pumps,
            reserves,
            clients,
            size,
            drained,
            signals,
            report,
            deadline,
            grace: None,
            timings,
        };
        let (code, ended) = session.run(running)?;
        timings.mark("ended");
        if plan.timings {
            eprint!("{}", timings.report());
        }
        Ok(outcome::exit_code(code, &ended, &disk_full))
    }
}

/// The pod's lock: held by this process, through the descriptor stage 0 passed, as long as it lives.
fn take_lock() -> Result<Option<File>> {
    let Ok(number) = std::env::var(LOCK_FD_VARIABLE) else {
        userns::close_descriptors_except(None)?;
        return Ok(None);
    };
    let number: RawFd = number
        .parse()
        .with_context(|| format!("read {LOCK_FD_VARIABLE}={number:?}"))?;
    ensure!(
        number > 2 && fs::read_link(format!("/proc/self/fd/{number}")).is_ok(),
        "{LOCK_FD_VARIABLE}={number} is not open"
    );
    #[expect(unsafe_code, reason = "a descriptor passed by number")]
    // SAFETY: the descriptor is open, as just seen, is none of stdio, and nothing else in this process owns it.
    let lock = unsafe { File::from_raw_fd(number) };
    fcntl_setfd(&lock, FdFlags::CLOEXEC).context("keep the pod's lock")?;
    userns::close_descriptors_except(Some(number))?;
    Ok(Some(lock))
}

/// The pumps of all apps, by their tasks. In a pod of several, each line says whose it is.
fn pumps(
    plan: &Plan,
    ports: &Ports,
    drained: &Arc<EventFd>,
    report: &Report,
) -> Result<BTreeMap<TaskId, Pumps>> {
    let several = plan.apps.len() > 1 || plan.mutable;
    let start = |app: &App| {
        let sharing = Sharing {
            drained: Arc::clone(drained),
            confine: || seccomp::confine_thread(Kind::Pump),
            label: several.then(|| app.name.clone()),
            // What a program of the machine's own writes is no text.
            log: (!app.built_in).then(|| report.log(&app.name)),
            input: Input::Own,
        };
        Pumps::start(app.stdio, ports, &sharing)
    };
    let apps = (0..).zip(&plan.apps);
    apps.map(|(task, app)| Ok((task, start(app)?))).collect()
}

/// Adds what the host says as late as it can.
fn complete(boot: &mut Boot) -> Result<()> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    boot.clock_ns = u64::try_from(clock.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
    boot.entropy.resize(ENTROPY_BYTES, 0);
    getrandom(&mut *boot.entropy, GetRandomFlags::empty()).context("get random bytes")?;
    Ok(())
}
