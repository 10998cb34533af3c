//! seccomp filters: one for the process, set before any other thread exists, and one a thread on top of it, by the
//! thread's kind (filters stack: a call must pass both). A denied call ends the process with its name, so that a
//! filter that is too narrow shows itself.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::RawFd;

use anyhow::{Context, Result};
use libc::{SIGSYS, c_int, c_long, c_void, siginfo_t};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use syscalls::Sysno;
use vmm_sys_util::signal::register_signal_handler;

/// What a thread does, and so what it may ask of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The main thread: control stream, signals, reports.
    Session,
    /// Moves one stream of an app.
    Pump,
    /// Runs a vCPU.
    Vcpu,
    /// Serves a disk.
    Disk,
    /// Serves vsock connections.
    Vsock,
    /// Serves shared folders.
    Fs,
    /// Plugs memory.
    Mem,
    /// Starts pumps for apps that come later.
    Starter,
}

/// Numbers of system calls.
macro_rules! calls {
    ($($name:ident)*) => { &[$(Sysno::$name as c_long),*] };
}

/// Memory, locks, signals and descriptors already open: what every thread needs.
const EVERY: &[c_long] = calls![
    read write readv writev close futex munmap mremap madvise brk rt_sigreturn rt_sigprocmask rt_sigaction
    sigaltstack exit exit_group clock_gettime getpid gettid sched_yield restart_syscall getrandom poll ppoll
];

/// Starting threads and putting filters on them, and waiting for the child that moves the process into its cgroup; gone once
/// a thread has its own filter.
const STARTING: &[c_long] = calls![
    clone3 clone set_robust_list rseq prctl seccomp sched_getaffinity prlimit64 eventfd2 signalfd4 socketpair getuid
    wait4 fstat lseek
];

/// What a thread that starts others needs beside what those may do; which threads, its limits say.
const NEW_THREADS: &[c_long] =
    calls![clone3 set_robust_list rseq seccomp sched_getaffinity socketpair lseek];

const SOCKETS: &[c_long] = calls![recvfrom sendto recvmsg sendmsg shutdown];

const EPOLL: &[c_long] = calls![epoll_create1 epoll_ctl epoll_wait epoll_pwait];

const DISK: &[c_long] = calls![pread64 pwrite64 preadv pwritev lseek fdatasync fsync fallocate];

/// What a file server does to files, by descriptors and names relative to them; and taking on a user's ids. No file
/// handles, which reach around the root.
const FILE_SERVER: &[c_long] = calls![
    openat openat2 newfstatat statx fstat fstatfs getdents64 readlinkat mkdirat mknodat symlinkat linkat unlinkat
    renameat renameat2 fchmod fchmodat fchownat utimensat ftruncate fallocate copy_file_range lseek fsync fdatasync
    syncfs flock preadv preadv2 pwritev pwritev2 pread64 pwrite64 getxattr setxattr listxattr removexattr fgetxattr
    fsetxattr flistxattr fremovexattr fchdir umask dup geteuid getegid setresuid setresgid setgroups capget capset
];

impl Kind {
    /// Calls allowed whatever their arguments.
    fn calls(self) -> Vec<c_long> {
        let own: &[&[c_long]] = match self {
            // Joining threads and draining outputs is all that is left once the machine runs.
            Self::Session => &[SOCKETS, calls![accept4 fstat lseek]],
            Self::Pump => &[SOCKETS, calls![lseek]],
            Self::Starter => &[SOCKETS, NEW_THREADS],
            Self::Vcpu => &[],
            Self::Disk => &[EPOLL, DISK],
            Self::Vsock => &[EPOLL, SOCKETS],
            Self::Mem => &[EPOLL],
            Self::Fs => &[EPOLL, FILE_SERVER],
        };
        [EVERY]
            .iter()
            .chain(own)
            .copied()
            .flatten()
            .copied()
            .collect()
    }
}

/// Calls allowed only with certain values of one argument.
struct Limited {
    call: c_long,
    argument: u8,
    comparison: Compare,
    values: &'static [u64],
}

impl Limited {
    const fn to(call: c_long, argument: u8, values: &'static [u64]) -> Self {
        Self {
            call,
            argument,
            comparison: Compare::Eq,
            values,
        }
    }
}

/// Number of the descriptor that the report folder is behind.
pub const REPORT_DESCRIPTOR: RawFd = 1000;

/// By name only in the report folder: a descriptor of another host folder, as the pod's lock, is no way out.
const IN_REPORT: [Limited; 3] = {
    const REPORT: &[u64] = &[REPORT_DESCRIPTOR as u64];
    [
        Limited::to(libc::SYS_openat, 0, REPORT),
        Limited::to(libc::SYS_symlinkat, 1, REPORT),
        Limited::to(libc::SYS_renameat, 0, REPORT),
    ]
};

/// Flags and copies of a descriptor; not F_SETOWN and F_SETSIG, which send signals to other processes.
const DESCRIPTOR_FLAGS: Limited = Limited::to(libc::SYS_fcntl, 1, &[1, 2, 3, 4, 1030]);

/// KVM_RUN, KVM_GET_REGS and KVM_GET_SREGS.
const KVM_VCPU: Limited = Limited::to(libc::SYS_ioctl, 1, &[0xae80, 0x8090_ae81, 0x8138_ae83]);

/// FIONBIO.
const NON_BLOCKING: Limited = Limited::to(libc::SYS_ioctl, 1, &[0x5421]);

/// TCGETS, TCSETS, TCSETSW, TIOCGWINSZ and FIONBIO; not TIOCSTI, which types into the user's shell.
const TERMINAL: Limited = Limited::to(
    libc::SYS_ioctl,
    1,
    &[0x5401, 0x5402, 0x5403, 0x5413, 0x5421],
);

/// CLONE_FS: a working folder of the thread's own, which the file server changes.
const OWN_FOLDER: Limited = Limited::to(libc::SYS_unshare, 0, &[0x200]);

/// PR_CAPBSET_READ and PR_CAP_AMBIENT: libcap-ng looks at all sets before it changes one.
const CAPABILITY_SETS: Limited = Limited::to(libc::SYS_prctl, 0, &[23, 47]);

/// What pthread_create asks for, and no new namespace or process.
const NEW_THREAD: Limited = Limited::to(
    libc::SYS_clone,
    0,
    &[(libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID) as u64],
);

/// PR_SET_NAME and PR_SET_NO_NEW_PRIVS: of a thread, and before its own filter.
const NEW_THREADS_OWN: Limited = Limited::to(libc::SYS_prctl, 0, &[15, 38]);

/// With AT_EMPTY_PATH: of a file that is open, to lay out disks.
const OPEN_FILE: Limited = Limited {
    call: libc::SYS_statx,
    argument: 2,
    comparison: Compare::MaskedEq(0x1000),
    values: &[0x1000],
};

/// Every request of KVM's, type 0xae: to make the machine.
const KVM: Limited = Limited {
    call: libc::SYS_ioctl,
    argument: 1,
    comparison: Compare::MaskedEq(0xff00),
    values: &[0xae00],
};

impl Kind {
    fn limited(self) -> Vec<Limited> {
        let mut limited = vec![DESCRIPTOR_FLAGS];
        match self {
            Self::Session => limited.extend(IN_REPORT.into_iter().chain([TERMINAL])),
            // Its app's log.
            Self::Pump => limited.extend(IN_REPORT),
            Self::Starter => {
                limited.extend(IN_REPORT.into_iter().chain([NEW_THREAD, NEW_THREADS_OWN]));
            }
            Self::Vcpu => limited.push(KVM_VCPU),
            Self::Vsock => limited.push(NON_BLOCKING),
            Self::Fs => limited.extend([OWN_FOLDER, CAPABILITY_SETS]),
            Self::Disk | Self::Mem => {}
        }
        limited
    }
}

/// Puts the filter of `kind` on the calling thread.
///
/// # Errors
/// When the kernel refuses it.
pub fn confine_thread(kind: Kind) -> Result<()> {
    apply(&kind.calls(), &kind.limited())
        .with_context(|| format!("install the seccomp filter of a {kind:?} thread"))
}

/// Puts the filter of a thread that starts others on the calling thread.
///
/// # Errors
/// When the kernel refuses it.
pub fn confine_starter() -> Result<()> {
    confine_thread(Kind::Starter)?;
    refuse_clone3().context("install the filter that refuses clone3")
}

/// The flags of clone3 lie in memory, where no filter sees them: the C library takes clone where the kernel has none.
fn refuse_clone3() -> Result<()> {
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, vec![])]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        TargetArch::x86_64,
    )?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
}

/// Every kind of thread.
const KINDS: [Kind; 8] = [
    Kind::Session,
    Kind::Pump,
    Kind::Vcpu,
    Kind::Disk,
    Kind::Vsock,
    Kind::Fs,
    Kind::Mem,
    Kind::Starter,
];

/// Puts the process's filter, the union of all, on the calling thread, from which all others inherit it.
pub(super) fn confine_process(shares: bool) -> Result<()> {
    register_signal_handler(SIGSYS, report_denied).context("handle SIGSYS")?;
    // What a starter may do is in it anyway: the process's filter is that of its start.
    let kinds = || {
        let kinds = KINDS.into_iter().filter(|kind| *kind != Kind::Starter);
        kinds.filter(|kind| shares || *kind != Kind::Fs)
    };
    let calls: Vec<_> = kinds()
        .flat_map(Kind::calls)
        .chain(STARTING.iter().copied())
        .collect();
    let limited: Vec<_> = kinds()
        .flat_map(Kind::limited)
        .chain([KVM, OPEN_FILE])
        .collect();
    apply(&calls, &limited)
}

fn apply(calls: &[c_long], limited: &[Limited]) -> Result<()> {
    let rules = rules(calls, limited)?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Trap,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
}

/// A call that one thread may make whatever its arguments is not limited by what another may do with it.
fn rules(calls: &[c_long], limited: &[Limited]) -> Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls.iter().map(|call| (*call, vec![])).collect();
    let mut allow = |call, argument, comparison, value| -> Result<()> {
        let condition = SeccompCondition::new(argument, Length::Dword, comparison, value)?;
        rules
            .entry(call)
            .or_default()
            .push(SeccompRule::new(vec![condition])?);
        Ok(())
    };
    for Limited {
        call,
        argument,
        comparison,
        values,
    } in limited
        .iter()
        .filter(|limited| !calls.contains(&limited.call))
    {
        for value in *values {
            allow(*call, *argument, comparison.clone(), *value)?;
        }
    }
    // Nothing ever becomes executable.
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        allow(call, 2, Compare::MaskedEq(executable), 0)?;
    }
    // Signals go to threads of this process only: that is how vCPUs are kicked.
    allow(
        libc::SYS_tgkill,
        0,
        Compare::Eq,
        u64::from(std::process::id()),
    )?;
    Ok(rules)
}

extern "C" fn report_denied(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    /// Offset of `si_syscall` in siginfo_t on x86_64: after three ints, padding, and the address of the call.
    const SI_SYSCALL_OFFSET: usize = 24;
    #[expect(unsafe_code, reason = "libc's siginfo_t does not name the field")]
    // SAFETY: the kernel passes a whole siginfo_t, 128 bytes, for SIGSYS with SA_SIGINFO.
    let call = unsafe {
        info.byte_add(SI_SYSCALL_OFFSET)
            .cast::<c_int>()
            .read_unaligned()
    };
    let name = usize::try_from(call).ok().and_then(Sysno::new);
    let name = name.map_or("of no name", |call| call.name());
    let mut line = [0; 128];
    let mut left = &mut line[..];
    // Formatted on the stack, without an allocation; what does not fit is cut off.
    let _ = writeln!(
        left,
        "fairing: the jail denied system call {call} ({name}) to one of its threads"
    );
    let unused = left.len();
    let line = &line[..line.len() - unused];
    #[expect(unsafe_code, reason = "only async-signal-safe calls are allowed here")]
    // SAFETY: write gets a buffer of its own length; _exit does not return.
    unsafe {
        libc::write(2, line.as_ptr().cast(), line.len());
        libc::_exit(i32::from(crate::life::FAILED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_every_kind_compile() {
        for kind in KINDS {
            let rules = rules(&kind.calls(), &kind.limited()).expect("valid rules");
            let filter = SeccompFilter::new(
                rules,
                SeccompAction::Trap,
                SeccompAction::Allow,
                TargetArch::x86_64,
            );
            BpfProgram::try_from(filter.expect("a valid filter")).expect("a program short enough");
        }
    }

    #[test]
    fn rules_never_allow_new_programs_or_sockets_by_name() {
        for kind in KINDS {
            for call in [
                libc::SYS_execve,
                libc::SYS_socket,
                libc::SYS_connect,
                libc::SYS_ptrace,
                libc::SYS_mount,
            ] {
                assert!(!kind.calls().contains(&call), "{kind:?} may call {call}");
            }
        }
    }

    /// Where no folder is shared: a file server's calls widen what the process's filter says of others', which their own
    /// filters do not.
    #[test]
    fn calls_limited_by_an_argument_are_nowhere_allowed_whole() {
        let others = |kind: &Kind| !matches!(kind, Kind::Fs | Kind::Starter);
        let kinds = || KINDS.into_iter().filter(others);
        let limited: Vec<_> = kinds()
            .flat_map(Kind::limited)
            .map(|limited| limited.call)
            .collect();
        let mut whole = kinds()
            .flat_map(Kind::calls)
            .chain(STARTING.iter().copied());
        assert!(whole.all(|call| !limited.contains(&call)));
    }

    #[test]
    fn file_server_has_no_file_handles_and_no_limits_that_its_calls_undo() {
        let calls = Kind::Fs.calls();
        let handles = [libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at];
        assert!(handles.iter().all(|call| !calls.contains(call)));
        assert!(
            Kind::Fs
                .limited()
                .iter()
                .all(|limited| !calls.contains(&limited.call))
        );
    }
}
