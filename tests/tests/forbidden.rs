//! What a guest could do that has taken over the process of its machine: from inside, on each of the threads of a running pod,
//! with its filters, ids and namespaces, what it must not do is tried.

use std::fs;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc::{self, c_long};
use tests::running::{Running, child_of};
use tests::tracee::{Outcome, Tracee};
use tests::{fairing, finish, proved, run_sh, store, tell, temporary, test_image, wait_until};

macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

/// For no thread of any pod; its filter looks at the number alone.
const FORBIDDEN: &[(&str, c_long)] = calls![
    SYS_execve SYS_execveat SYS_fork SYS_vfork SYS_clone SYS_clone3
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_open SYS_pidfd_getfd SYS_pidfd_send_signal
    SYS_kill SYS_tkill SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo
    SYS_socket SYS_socketpair SYS_connect SYS_bind SYS_listen
    SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_fsopen SYS_mount_setattr
    SYS_setns
    SYS_bpf SYS_perf_event_open SYS_seccomp SYS_userfaultfd SYS_io_uring_setup SYS_io_setup
    SYS_keyctl SYS_add_key SYS_request_key
    SYS_open SYS_creat SYS_open_by_handle_at SYS_name_to_handle_at SYS_fanotify_init SYS_inotify_init1
    SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_reboot SYS_swapon SYS_acct SYS_syslog
    SYS_settimeofday SYS_clock_settime SYS_sethostname SYS_quotactl
    SYS_iopl SYS_ioperm SYS_modify_ldt SYS_personality
    SYS_memfd_create SYS_memfd_secret SYS_shmget SYS_shmat SYS_msgget SYS_mq_open
    SYS_setuid SYS_setgid SYS_setreuid SYS_setfsuid
    SYS_prlimit64 SYS_setrlimit SYS_setpriority SYS_sched_setaffinity SYS_sched_setscheduler SYS_ioprio_set
    SYS_migrate_pages SYS_move_pages SYS_mbind
];

/// For no thread but the file server's; for some others at the descriptor of the report folder.
const OF_FILE_SERVER: &[(&str, c_long)] = calls![
    SYS_openat SYS_openat2 SYS_mkdirat SYS_mknodat SYS_symlinkat SYS_linkat SYS_unlinkat SYS_renameat SYS_renameat2
    SYS_fchmod SYS_fchmodat SYS_fchownat SYS_setxattr SYS_getdents64 SYS_fchdir
    SYS_setresuid SYS_setresgid SYS_setgroups SYS_capset
];

/// What the thread that starts others may ask for; of clone3 its filter says that there is none.
const OF_STARTER: &[(&str, c_long)] = calls![SYS_socketpair SYS_seccomp SYS_clone3];

/// For no thread, with these arguments.
const WITH_ARGUMENTS: &[(&str, c_long, [u64; 6])] = &[
    ("TIOCSTI", libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0, 0]),
    (
        "F_SETOWN",
        libc::SYS_fcntl,
        [0, libc::F_SETOWN as u64, 1, 0, 0, 0],
    ),
    ("F_SETSIG", libc::SYS_fcntl, [0, 10, 9, 0, 0, 0]),
    (
        "executable memory",
        libc::SYS_mmap,
        [0, 4096, 5, 0x22, u64::MAX, 0],
    ),
    (
        "memory made executable",
        libc::SYS_mprotect,
        [0, 4096, 5, 0, 0, 0],
    ),
    ("a signal to init", libc::SYS_tgkill, [1, 1, 9, 0, 0, 0]),
    ("PR_SET_DUMPABLE", libc::SYS_prctl, [4, 1, 0, 0, 0, 0]),
    ("a process", libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
    (
        "a thread in a user namespace",
        libc::SYS_clone,
        [0x103d_0f00, 0, 0, 0, 0, 0],
    ),
    (
        "a user namespace",
        libc::SYS_unshare,
        [0x1000_0000, 0, 0, 0, 0, 0],
    ),
];

/// The descriptor of a pod's report folder, below which its session may open files.
const REPORT: u64 = 1000;
const HERE: u64 = (libc::AT_FDCWD as i64).cast_unsigned();
const FILE_SERVER: &str = "fs";
const STARTER: &str = "starter";

fn start(options: &[&str]) -> Running {
    let options = [&["-i"], options].concat();
    let mut pod = Running::with_stdin(&mut run_sh(&options, "echo up; read word; echo $word"));
    assert_eq!(pod.line(), "up");
    pod
}

/// That the app is none the worse for what its machine's process went through.
fn end(mut pod: Running) {
    pod.write("well\n");
    assert_eq!(pod.line(), "well");
    pod.finish().expect_code(0);
}

/// The threads' names and ids.
fn threads(pid: u32) -> Vec<(String, u32)> {
    let folder = format!("/proc/{pid}/task");
    let threads = fs::read_dir(folder).expect("the pod runs").map(|task| {
        let task = task.expect("a thread").path();
        let name = fs::read_to_string(task.join("comm")).expect("a name");
        let id = task.file_name().and_then(|id| id.to_str()?.parse().ok());
        (name.trim_end().to_owned(), id.expect("an id"))
    });
    threads.collect()
}

/// Tries on each thread of the pod, of which these are some, what its filter must not let through; tells how often.
fn try_all(pid: u32, some: &[&str]) {
    let threads = threads(pid);
    let is_there = |name: &&str| threads.iter().any(|(known, _)| known == name);
    assert!(some.iter().all(is_there), "{threads:?}");
    let mut tried = 0;
    for (name, thread) in &threads {
        let mut thread = Tracee::stop(pid, *thread);
        let server: &[_] = if name == FILE_SERVER {
            &[]
        } else {
            OF_FILE_SERVER
        };
        let may = |call: &c_long| {
            name == STARTER && OF_STARTER.iter().any(|(_, allowed)| allowed == call)
        };
        let whole = FORBIDDEN.iter().chain(server);
        let whole = whole.filter(|(_, call)| !may(call));
        let whole = whole.map(|(call, number)| (*call, *number, [0; 6]));
        for (call, number, arguments) in whole.chain(WITH_ARGUMENTS.iter().copied()) {
            assert_eq!(
                thread.call(number, arguments),
                Outcome::Trapped,
                "{call} on {name}"
            );
            tried += 1;
        }
    }
    tell(&format!(
        "{tried} forbidden calls on {} threads",
        threads.len()
    ));
}

/// Tries to open `path` below the folder `at` on a thread.
fn open(thread: &mut Tracee, at: u64, path: &str) -> Outcome {
    thread.call_on(libc::SYS_openat, path, 1, [at, 0, 0, 0, 0, 0])
}

fn failed(error: Errno) -> Outcome {
    Outcome::Answered(-i64::from(error as i32))
}

/// The pod's report folder on the host: its session has it open. Found by the pod's cgroup, which has its UUID.
fn report_of(pod: &Running) -> PathBuf {
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", pod.pid())).expect("the pod runs");
    let (_, uuid) = cgroup.trim().rsplit_once('/').expect("a cgroup");
    store()
        .join("pods/run")
        .join(uuid)
        .join("stage1/rootfs/rkt")
}

fn thread_called(pid: u32, name: &str) -> Tracee {
    let threads = threads(pid);
    let thread = threads.iter().find(|(known, _)| known == name);
    let (_, thread) = thread.unwrap_or_else(|| panic!("no thread {name}: {threads:?}"));
    Tracee::stop(pid, *thread)
}

#[test]
fn no_thread_of_a_pod_can_do_more_than_its_work() {
    let pod = start(&[]);
    try_all(pod.pid(), &["vcpu0", "vsock", "disk"]);
    let report = report_of(&pod);
    let mut session = Tracee::stop(pod.pid(), pod.pid());
    assert!(matches!(
        open(&mut session, REPORT, "status"),
        Outcome::Answered(0..)
    ));
    for path in [
        "/etc/shadow",
        &format!("{}etc/shadow", "../".repeat(16)),
        "../run",
        "../../../pod",
    ] {
        assert!(report.join(path).exists(), "{path}");
        assert_eq!(
            open(&mut session, REPORT, path),
            failed(Errno::ENOENT),
            "{path}"
        );
    }
    drop(session);
    end(pod);
}

#[test]
fn file_server_reaches_its_shares_and_nothing_else() {
    let folder = temporary("fairing-forbidden-");
    fs::write(folder.path().join("file"), "").expect("a file");
    let volume = format!("{}:/data", folder.path().display());
    let other = start(&[]);
    let pod = start(&["-v", &volume, "-v", &format!("{volume}2:cache=none")]);
    try_all(pod.pid(), &["vcpu0", "vsock", "disk", FILE_SERVER]);
    let mut server = thread_called(pod.pid(), FILE_SERVER);
    assert!(matches!(
        open(&mut server, HERE, "/0/file"),
        Outcome::Answered(0..)
    ));
    let others = report_of(&other);
    for path in [
        "/etc/shadow",
        "/proc/self/root/etc/shadow",
        "/proc/1/environ",
        "/dev/kvm",
        "/sys/kernel",
        "/run/fairing/uids",
        others.to_str().expect("a name of ours"),
    ] {
        assert!(fs::exists(path).is_ok_and(|exists| exists), "{path}");
        for way in ["", "/0/..", &"../".repeat(16)] {
            let path = format!("{way}{path}");
            assert_eq!(
                open(&mut server, HERE, &path),
                failed(Errno::ENOENT),
                "{path}"
            );
        }
    }
    let device = u64::from(libc::S_IFCHR | 0o666);
    let made = server.call_on(
        libc::SYS_mknodat,
        "/0/mem",
        1,
        [HERE, 0, device, 0x101, 0, 0],
    );
    assert_eq!(made, failed(Errno::EPERM), "a device in the share");
    let made = server.call_on(libc::SYS_mkdirat, "/1", 1, [HERE, 0, 0o755, 0, 0, 0]);
    assert_eq!(made, failed(Errno::EROFS), "a folder beside the share");
    expect_lock_to_be_no_way_out(&mut server, pod.pid());
    drop(server);
    end(pod);
    end(other);
}

/// The pod's lock is a descriptor of its directory on the host, which root may read. Only Landlock keeps a file server from what
/// has a name from there.
fn expect_lock_to_be_no_way_out(server: &mut Tracee, pid: u32) {
    let open_files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the pod runs");
    let mut folders = open_files.map(|file| file.expect("a descriptor").path());
    let is_lock = |file: &PathBuf| {
        let target = fs::read_link(file).expect("a descriptor");
        target
            .parent()
            .is_some_and(|pods| pods.ends_with("pods/run"))
    };
    let lock = folders.find(is_lock).expect("the pod's lock");
    let lock = lock
        .file_name()
        .and_then(|number| number.to_str()?.parse().ok());
    let lock = lock.expect("a number");
    for path in [
        "pod",
        "stage1/rootfs/run",
        "../../run",
        "../../../../../../../../etc/shadow",
    ] {
        assert_eq!(open(server, lock, path), failed(Errno::EACCES), "{path}");
    }
}

#[test]
fn thread_that_starts_others_in_a_pod_that_takes_apps_starts_nothing_else() {
    let folder = temporary("fairing-forbidden-");
    let file = folder.path().join("uuid");
    let mut sandbox = fairing();
    sandbox
        .args(["app", "sandbox", "--rm", "--uuid-file-save"])
        .arg(&file);
    let pod = Running::start(&mut sandbox);
    let uuid = || {
        fs::read_to_string(&file)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    wait_until("the pod has a UUID", || !uuid().is_empty());
    let uuid = uuid();
    finish(fairing().args(["status", "--wait-ready", &uuid])).expect_code(0);
    let mut add = fairing();
    add.args(["app", "add", &uuid, "--name=one", "--exec=/bin/sh", "-v"]);
    add.arg(format!("{}:/s", folder.path().display()));
    add.arg(test_image("busybox"));
    finish(add.args(["--", "-c", &proved("read nothing; sleep 1000")])).expect_code(0);
    finish(fairing().args(["app", "start", &uuid, "--app=one"])).expect_code(0);
    // The command outlives the pod, which is its child.
    let pid = child_of(pod.pid());
    try_all(
        pid,
        &[
            "vcpu0",
            "vsock",
            "disk",
            "mem",
            "stdout",
            "stderr",
            FILE_SERVER,
            STARTER,
        ],
    );
    let mut starter = thread_called(pid, STARTER);
    assert_eq!(
        starter.call(libc::SYS_clone3, [0; 6]),
        failed(Errno::ENOSYS)
    );
    drop(starter);
    finish(fairing().args(["app", "stop", &uuid, "--app=one"])).expect_code(0);
    pod.signal("TERM");
    pod.finish().expect_code(0);
}

#[test]
fn denied_call_ends_the_pod_and_is_named() {
    let pod = start(&[]);
    thread_called(pod.pid(), "vcpu0").call_untraced(libc::SYS_unshare);
    let report = pod.finish().expect_code(254).err();
    assert!(
        report.contains("denied system call 272 (unshare)"),
        "{report}"
    );
    wait_until("nothing of the pod runs", || {
        tests::leftovers::processes().is_empty()
    });
}
