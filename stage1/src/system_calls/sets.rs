//! Sets of system calls by name: those that rkt knew, with the calls of x86_64. The whitelists have what Docker's default
//! allows an app without capabilities today: the one of 2016 is too narrow for the C libraries of now.

/// What an app may call by default in Docker.
pub const DEFAULT: &str = "@docker/default-whitelist";

/// The calls of the set `name`.
pub fn find(name: &str) -> Option<impl Iterator<Item = &'static str> + use<>> {
    let (_, parts) = SETS.iter().find(|(known, _)| *known == name)?;
    Some(parts.iter().flat_map(|part| part.split_whitespace()))
}

/// All names.
#[cfg(test)]
pub fn names() -> impl Iterator<Item = &'static str> {
    SETS.iter().map(|(name, _)| *name)
}

const SETS: [(&str, &[&str]); 12] = [
    (DEFAULT, &[WHITELIST]),
    ("@docker/default-blacklist", &[BLACKLIST]),
    ("@rkt/default-whitelist", &[WHITELIST]),
    ("@rkt/default-blacklist", &[BLACKLIST]),
    ("@systemd/clock", &[CLOCK]),
    (
        "@systemd/default-whitelist",
        &[
            WHITELIST,
            CLOCK,
            MOUNT,
            "setns unshare sethostname setdomainname quotactl name_to_handle_at",
        ],
    ),
    ("@systemd/mount", &[MOUNT]),
    ("@systemd/network-io", &[NETWORK]),
    ("@systemd/obsolete", &[OBSOLETE]),
    ("@systemd/privileged", &[CLOCK, RAW_IO, PRIVILEGED]),
    ("@systemd/process", &[PROCESS]),
    ("@systemd/raw-io", &[RAW_IO]),
];

const CLOCK: &str = "adjtimex clock_adjtime clock_settime settimeofday";

const MOUNT: &str = "chroot fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root umount2";

const NETWORK: &str = "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg \
    sendmmsg sendmsg sendto setsockopt shutdown socket socketpair";

const OBSOLETE: &str = "_sysctl afs_syscall create_module get_kernel_syms getpmsg putpmsg query_module security sysfs \
    tuxcall uselib ustat vserver";

const RAW_IO: &str = "ioperm iopl";

const PROCESS: &str =
    "arch_prctl clone clone3 execve execveat fork kill prctl setns tgkill tkill unshare vfork";

const PRIVILEGED: &str = "_sysctl acct bpf capset chown chroot delete_module fchown fchownat finit_module init_module \
    kexec_file_load kexec_load lchown nfsservctl pivot_root quotactl reboot setdomainname setfsuid setgroups sethostname \
    setresuid setreuid setuid swapoff swapon vhangup";

const BLACKLIST: &str = "_sysctl acct add_key adjtimex bpf clock_adjtime clock_settime create_module delete_module \
    finit_module get_kernel_syms get_mempolicy init_module ioperm iopl kcmp kexec_file_load kexec_load keyctl \
    lookup_dcookie mbind mount move_pages name_to_handle_at nfsservctl open_by_handle_at perf_event_open pivot_root \
    process_vm_readv process_vm_writev ptrace query_module quotactl reboot request_key set_mempolicy setns settimeofday \
    swapoff swapon sysfs umount2 unshare uselib userfaultfd ustat";

const WHITELIST: &str = "accept accept4 access alarm arch_prctl bind brk capget capset chdir chmod chown chroot \
    clock_getres clock_gettime clock_nanosleep clone clone3 close close_range connect copy_file_range creat dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod \
    fchmodat fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync \
    ftruncate futex futex_waitv futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid \
    geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid \
    getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch \
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl \
    ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link \
    linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise membarrier memfd_create memfd_secret \
    mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr mq_notify mq_open \
    mq_timedreceive mq_timedsend mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep \
    newfstatat open openat openat2 pause personality pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free \
    pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2 \
    read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat \
    renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity \
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg \
    sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid \
    setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr shmat shmctl shmdt \
    shmget shutdown sigaltstack signalfd signalfd4 socket socketpair splice stat statfs statx symlink symlinkat sync \
    sync_file_range syncfs sysinfo syslog tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime \
    timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime \
    utimensat utimes vfork vmsplice wait4 waitid write writev";
