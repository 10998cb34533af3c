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
use vmm::running::ThreadKind;
use vmm_sys_util::signal::register_signal_handler;

/// What a thread does, and so what it may ask of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of the machine; its owner is the main thread: control stream, signals, reports.
    Machine(ThreadKind),
    /// Moves one stream of an app.
    Pump,
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

/// Calls allowed only with certain values of one argument.
#[derive(Clone)]
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

    /// Of the argument only these bits are looked at.
    const fn bits(mut self, bits: u64) -> Self {
        self.comparison = Compare::MaskedEq(bits);
        self
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

/// What every thread needs of these.
const EVERY_LIMITED: [Limited; 3] = {
    const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
    [
        // Flags and copies of a descriptor; not F_SETOWN and F_SETSIG, which send signals to other processes.
        Limited::to(libc::SYS_fcntl, 1, &[1, 2, 3, 4, 1030]),
        // Nothing ever becomes executable.
        Limited::to(libc::SYS_mmap, 2, &[0]).bits(EXECUTABLE),
        Limited::to(libc::SYS_mprotect, 2, &[0]).bits(EXECUTABLE),
    ]
};

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

/// What cards ask of their taps.
const OF_TAPS: Limited = Limited::to(
    libc::SYS_ioctl,
    1,
    &[libc::TUNSETOFFLOAD, libc::TUNSETQUEUE],
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
const OPEN_FILE: Limited = Limited::to(libc::SYS_statx, 2, &[0x1000]).bits(0x1000);

/// Every request of KVM's, type 0xae: to make the machine.
const KVM: Limited = Limited::to(libc::SYS_ioctl, 1, &[0xae00]).bits(0xff00);

/// What a thread may ask for beside what all may: calls whatever their arguments, and calls that are limited.
type Own = (&'static [&'static [c_long]], &'static [&'static [Limited]]);

impl Kind {
    fn own(self) -> Own {
        match self {
            Self::Machine(kind) => match kind {
                // Joining threads and draining outputs is all that is left once the machine runs.
                ThreadKind::Owner => (
                    &[SOCKETS, calls![accept4 fstat lseek]],
                    &[&IN_REPORT, &[TERMINAL]],
                ),
                ThreadKind::Vcpu => (&[], &[&[KVM_VCPU]]),
                ThreadKind::Disk => (&[EPOLL, DISK], &[]),
                ThreadKind::Vsock => (&[EPOLL, SOCKETS], &[&[NON_BLOCKING]]),
                ThreadKind::Mem => (&[EPOLL], &[]),
                ThreadKind::Fs => (&[EPOLL, FILE_SERVER], &[&[OWN_FOLDER, CAPABILITY_SETS]]),
                ThreadKind::Net => (&[EPOLL, SOCKETS], &[&[OF_TAPS]]),
                // This stage 1 has none.
                ThreadKind::Balloon => (&[], &[]),
            },
            // It writes its app's log.
            Self::Pump => (&[SOCKETS, calls![lseek]], &[&IN_REPORT]),
            Self::Starter => (
                &[SOCKETS, NEW_THREADS],
                &[&IN_REPORT, &[NEW_THREAD, NEW_THREADS_OWN]],
            ),
        }
    }

    fn calls(self) -> Vec<c_long> {
        [&[EVERY], self.own().0].concat().concat()
    }

    fn limited(self) -> Vec<Limited> {
        self.own().1.concat()
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

/// The kinds that a process has from its start, a file server last.
const KINDS: [Kind; 8] = [
    Kind::Pump,
    Kind::Machine(ThreadKind::Owner),
    Kind::Machine(ThreadKind::Vcpu),
    Kind::Machine(ThreadKind::Disk),
    Kind::Machine(ThreadKind::Vsock),
    Kind::Machine(ThreadKind::Mem),
    Kind::Machine(ThreadKind::Net),
    Kind::Machine(ThreadKind::Fs),
];

/// Puts the process's filter, the union of all, on the calling thread, from which all others inherit it. What a starter may do is
/// in it anyway: it is that of the process's start.
pub(super) fn confine_process(shares: bool) -> Result<()> {
    register_signal_handler(SIGSYS, report_denied).context("handle SIGSYS")?;
    let kinds = &KINDS[..KINDS.len() - usize::from(!shares)];
    let calls = kinds.iter().flat_map(|kind| kind.calls());
    let calls: Vec<_> = calls.chain(STARTING.iter().copied()).collect();
    let limited = kinds.iter().flat_map(|kind| kind.limited());
    let limited: Vec<_> = limited.chain([KVM, OPEN_FILE]).collect();
    apply(&calls, &limited)
}

fn apply(calls: &[c_long], limited: &[Limited]) -> Result<()> {
    seccompiler::apply_filter(&program(calls, limited)?)?;
    Ok(())
}

/// A call that one thread may make whatever its arguments is not limited by what another may do with it.
fn program(calls: &[c_long], limited: &[Limited]) -> Result<BpfProgram> {
    let whole = calls.iter().map(|call| (*call, vec![]));
    let mut rules: BTreeMap<_, Vec<_>> = whole.collect();
    let mut allow = |limited: &Limited, value| -> Result<()> {
        let comparison = limited.comparison.clone();
        let condition = SeccompCondition::new(limited.argument, Length::Dword, comparison, value)?;
        let rule = SeccompRule::new(vec![condition])?;
        rules.entry(limited.call).or_default().push(rule);
        Ok(())
    };
    let limited = limited.iter().chain(&EVERY_LIMITED);
    for limited in limited.filter(|limited| !calls.contains(&limited.call)) {
        for value in limited.values {
            allow(limited, *value)?;
        }
    }
    // Signals go to threads of this process only: that is how vCPUs are kicked.
    let own_threads = Limited::to(libc::SYS_tgkill, 0, &[]);
    allow(&own_threads, std::process::id().into())?;
    let (denied, allowed) = (SeccompAction::Trap, SeccompAction::Allow);
    let filter = SeccompFilter::new(rules, denied, allowed, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
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

    const FILE_SERVERS: Kind = Kind::Machine(ThreadKind::Fs);

    #[test]
    fn rules_of_every_kind_compile() {
        for kind in KINDS.into_iter().chain([Kind::Starter]) {
            program(&kind.calls(), &kind.limited())
                .expect("valid rules and a program short enough");
        }
    }

    #[test]
    fn rules_never_allow_new_programs_or_sockets_by_name() {
        for kind in KINDS.into_iter().chain([Kind::Starter]) {
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
        let kinds = || KINDS.into_iter().filter(|kind| *kind != FILE_SERVERS);
        let limited = kinds().flat_map(Kind::limited).chain(EVERY_LIMITED);
        let limited: Vec<_> = limited.map(|limited| limited.call).collect();
        let mut whole = kinds()
            .flat_map(Kind::calls)
            .chain(STARTING.iter().copied());
        assert!(whole.all(|call| !limited.contains(&call)));
    }

    #[test]
    fn file_server_has_no_file_handles_and_no_limits_that_its_calls_undo() {
        let calls = FILE_SERVERS.calls();
        let handles = [libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at];
        assert!(handles.iter().all(|call| !calls.contains(call)));
        assert!(
            FILE_SERVERS
                .limited()
                .iter()
                .all(|limited| !calls.contains(&limited.call))
        );
    }
}
