//! seccomp filters: one for the process, set before any other thread exists, and one a thread on top of it, by the
//! thread's kind (filters stack: a call must pass both). A denied call ends the process with its number, so that a
//! filter that is too narrow shows itself.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use libc::{SIGSYS, c_int, c_long, c_void, siginfo_t};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
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
}

/// Memory, locks, signals and descriptors already open: what every thread needs.
const EVERY: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_futex,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_clock_gettime,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_sched_yield,
    libc::SYS_fcntl,
    libc::SYS_restart_syscall,
    libc::SYS_getrandom,
    libc::SYS_poll,
    libc::SYS_ppoll,
];

/// Starting threads and putting filters on them; gone once a thread has its own filter.
const STARTING: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_clone,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_sched_getaffinity,
    libc::SYS_prlimit64,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_socketpair,
    libc::SYS_getuid,
    libc::SYS_fstat,
    libc::SYS_lseek,
];

const SOCKETS: &[c_long] = &[
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
];

const EPOLL: &[c_long] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
];

/// The report folder's files, reached by name in an otherwise empty root.
const FILES: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_rename,
    libc::SYS_renameat2,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_statx,
    libc::SYS_fstat,
];

const DISK: &[c_long] = &[
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_fallocate,
];

impl Kind {
    /// Calls allowed whatever their arguments.
    fn calls(self) -> Vec<c_long> {
        let own: &[&[c_long]] = match self {
            // Joining threads and draining outputs is all that is left once the machine runs.
            Self::Session => &[SOCKETS, FILES, &[libc::SYS_ioctl, libc::SYS_fsync]],
            Self::Pump => &[SOCKETS],
            Self::Vcpu => &[&[libc::SYS_ioctl]],
            Self::Disk => &[EPOLL, DISK],
            Self::Vsock => &[EPOLL, SOCKETS, &[libc::SYS_ioctl]],
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

/// Puts the filter of `kind` on the calling thread.
///
/// # Errors
/// When the kernel refuses it.
pub fn confine_thread(kind: Kind) -> Result<()> {
    apply(&kind.calls()).with_context(|| format!("install the seccomp filter of a {kind:?} thread"))
}

/// Puts the process's filter, the union of all, on the calling thread, from which all others inherit it.
pub(super) fn confine_process() -> Result<()> {
    register_signal_handler(SIGSYS, report_denied).context("handle SIGSYS")?;
    let kinds = [
        Kind::Session,
        Kind::Pump,
        Kind::Vcpu,
        Kind::Disk,
        Kind::Vsock,
    ];
    let calls: Vec<_> = kinds
        .into_iter()
        .flat_map(Kind::calls)
        .chain(STARTING.iter().copied())
        .collect();
    apply(&calls)
}

fn apply(calls: &[c_long]) -> Result<()> {
    let filter = SeccompFilter::new(
        rules(calls)?,
        SeccompAction::Trap,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
}

fn rules(calls: &[c_long]) -> Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls.iter().map(|call| (*call, vec![])).collect();
    // Nothing ever becomes executable.
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_executable =
            SeccompCondition::new(2, Length::Dword, Compare::MaskedEq(executable), 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![not_executable])?]);
    }
    // Signals go to threads of this process only: that is how vCPUs are kicked.
    let own = SeccompCondition::new(0, Length::Dword, Compare::Eq, u64::from(std::process::id()))?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own])?]);
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
    let mut digits = *b"fairing: the jail denied system call 0000 to one of its threads\n";
    let mut rest = call.unsigned_abs();
    for place in (37..41).rev() {
        digits[place] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    #[expect(unsafe_code, reason = "only async-signal-safe calls are allowed here")]
    // SAFETY: write gets a buffer of its own length; _exit does not return.
    unsafe {
        libc::write(2, digits.as_ptr().cast(), digits.len());
        libc::_exit(i32::from(crate::life::FAILED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_every_kind_compile() {
        for kind in [
            Kind::Session,
            Kind::Pump,
            Kind::Vcpu,
            Kind::Disk,
            Kind::Vsock,
        ] {
            let rules = rules(&kind.calls()).expect("valid rules");
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
        for kind in [
            Kind::Session,
            Kind::Pump,
            Kind::Vcpu,
            Kind::Disk,
            Kind::Vsock,
        ] {
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
}
