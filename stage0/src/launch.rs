//! Hands a pod to its stage 1 (contract section 1.2): this process becomes the `run` entrypoint, or, where somebody
//! must outlive the pod, waits for it as its parent.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use contract::RunArguments;
use contract::pod_dir::LOCK_FD_VARIABLE;
use contract::signal::PASSED_ON;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SignalFd, siginfo};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::Pid;

use crate::directories;
use crate::pods::{Folder, Lock, Pod};
use crate::stage1::Stage1;

/// A pod in `run`, ready to be handed over.
pub struct Launch {
    command: Command,
    lock: Lock,
    uuid: String,
}

impl Launch {
    /// Moves a laid out pod to `run`, mounts its apps' directories and makes the entrypoint's command line.
    ///
    /// # Errors
    /// If the stage 1 has no `run` entrypoint, the pod cannot be moved, or a directory not be mounted.
    pub fn new(pod: &mut Pod, lock: Lock, arguments: &RunArguments) -> Result<Self> {
        Stage1::of_pod(pod)?.entrypoint("run")?;
        pod.move_to(Folder::Run, &lock)?;
        // Where the stage 1 is executed, and where the names of its apps' layers begin.
        std::env::set_current_dir(pod.path())
            .with_context(|| format!("enter {}", pod.path().display()))?;
        let manifest = pod.manifest()?;
        let apps = manifest.apps.iter().map(|app| app.name.as_str());
        directories::mount_all(pod.dir(), apps)?;
        let stage1 = Stage1::of_pod(pod)?;
        let (argv, unknown) = arguments.to_argv(stage1.interface_version());
        for name in unknown {
            crate::note(&format!(
                "stage 1 {} is too old for --{name}, going on without",
                stage1.name()
            ));
        }
        let mut command = Command::new(stage1.entrypoint("run")?);
        command
            .args(argv)
            .env("RKT_SELINUX_CONTEXT", "")
            .env("RKT_SELINUX_MOUNT_CONTEXT", "");
        Ok(Self {
            command,
            lock,
            uuid: pod.uuid().to_owned(),
        })
    }

    /// Replaces this process by the entrypoint.
    ///
    /// # Errors
    /// Returns only if the entrypoint cannot be executed.
    pub fn exec(mut self) -> anyhow::Error {
        let error = match pass_lock(&mut self.command, &self.lock) {
            Ok(()) => self.command.exec().into(),
            Err(error) => error,
        };
        error.context(format!("execute the stage 1 of pod {}", self.uuid))
    }

    /// Runs the entrypoint as a child, and returns its exit code once it has ended.
    ///
    /// Signals that a process sent to this one alone are passed on; those of the terminal reach the child by itself.
    ///
    /// # Errors
    /// If the entrypoint cannot be executed or waited for.
    pub fn supervise(mut self) -> Result<i32> {
        let signals = caught_signals()?;
        signals.thread_block().context("block signals")?;
        let events = SignalFd::new(&signals).context("wait for signals")?;
        let terminal = tcgetattr(std::io::stdin()).ok();
        let mut child = self.spawn()?;
        // The pod is running as long as the lock is held, so the child alone may hold it.
        drop(self.lock);
        let status = wait(&mut child, &events);
        restore(terminal.as_ref());
        let status = status.with_context(|| format!("wait for pod {}", self.uuid))?;
        if let Some(signal) = status.signal() {
            crate::note(&format!(
                "the stage 1 of pod {} was killed by signal {signal}",
                self.uuid
            ));
        }
        Ok(exit_code(status))
    }

    /// Runs the entrypoint as a child whose stdout this process reads.
    ///
    /// # Errors
    /// If the entrypoint cannot be executed.
    pub fn pipe(mut self) -> Result<Child> {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped());
        self.spawn()
    }

    /// Runs the entrypoint as a child that nothing of this process's ties to it; gives it and the file that it tells into.
    ///
    /// # Errors
    /// If the entrypoint cannot be executed.
    pub fn detach(mut self, pod: &Pod) -> Result<(Child, File)> {
        let path = pod.path().join("stderr");
        let mut options = File::options();
        options.create_new(true).read(true).write(true);
        let told = options.open(&path);
        let told = told.with_context(|| format!("make {}", path.display()))?;
        let theirs = told.try_clone().context("pass the pod's stderr on")?;
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(theirs)
            // Not in the foreground of any terminal, so none of its signals are meant for the pod.
            .process_group(0);
        Ok((self.spawn()?, told))
    }

    fn spawn(&mut self) -> Result<Child> {
        pass_lock(&mut self.command, &self.lock)?;
        let child = self.command.spawn();
        child.with_context(|| format!("execute the stage 1 of pod {}", self.uuid))
    }
}

/// Lets the lock's descriptor, and no other above 2, survive the exec.
fn pass_lock(command: &mut Command, lock: &Lock) -> Result<()> {
    close_on_exec_from_3()?;
    let directory = lock.directory();
    fcntl(directory, FcntlArg::F_SETFD(FdFlag::empty())).context("pass the pod's lock on")?;
    command.env(LOCK_FD_VARIABLE, directory.as_raw_fd().to_string());
    Ok(())
}

/// The code a shell shows for `status`.
pub fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// What a waiting parent catches; a signal that its caller had ignored (nohup, a shell's background job) stays ignored.
fn caught_signals() -> Result<SigSet> {
    let ignored = crate::jail::ignored_signals()?;
    let mut caught: SigSet = PASSED_ON
        .into_iter()
        .filter_map(|number| Signal::try_from(number).ok())
        .filter(|signal| ignored >> (*signal as u32 - 1) & 1 == 0)
        .collect();
    caught.add(Signal::SIGCHLD);
    // The terminal is restored from wherever this process then is.
    caught.add(Signal::SIGTTOU);
    Ok(caught)
}

fn wait(child: &mut Child, events: &SignalFd) -> Result<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let Some(event) = events.read_signal().or_else(|error| match error {
            nix::errno::Errno::EINTR => Ok(None),
            error => Err(error),
        })?
        else {
            continue;
        };
        let signal = i32::try_from(event.ssi_signo)
            .ok()
            .and_then(|number| Signal::try_from(number).ok());
        match signal {
            Some(Signal::SIGCHLD | Signal::SIGTTOU) | None => {}
            // One that the child has ended before is no loss.
            Some(signal) if was_sent_by_a_process(&event) => drop(kill(pid, signal)),
            Some(_) => {}
        }
    }
}

/// A terminal's signals come from the kernel, and to the whole process group.
fn was_sent_by_a_process(event: &siginfo) -> bool {
    [libc::SI_USER, libc::SI_QUEUE, libc::SI_TKILL].contains(&event.ssi_code)
}

fn restore(terminal: Option<&Termios>) {
    if let Some(terminal) = terminal {
        // The terminal may have been closed meanwhile.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, terminal);
    }
}

/// Marks every descriptor from 3 on close-on-exec: fairing's own are already, the caller's stray ones are not.
fn close_on_exec_from_3() -> Result<()> {
    #[expect(unsafe_code, reason = "system call without a safe binding")]
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC sets a flag on descriptors; it closes none and touches no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("mark descriptors close-on-exec");
    }
    Ok(())
}
