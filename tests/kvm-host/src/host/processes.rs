//! The processes of an emulated host: two file servers and QEMU. Each dies with the keeper, whatever ends it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;

use super::{Shape, emulator, tsc};
use crate::wire::spec::{PORT_NAME_PREFIX, PORTS};

const FILE_SERVER: &str = "/usr/lib/qemu/virtiofsd";

/// Name of the file to which QEMU and the file servers write their complaints.
pub const LOG: &str = "log";
/// Name of the file that takes the emulated host's console.
pub const CONSOLE: &str = "console";
/// Name of port N's socket.
pub fn port_socket(number: usize) -> String {
    format!("port{number}")
}

/// The file servers' processes, then QEMU's.
pub fn start(shape: &Shape) -> Result<Vec<Child>> {
    let log = File::create(shape.dir.join(LOG)).context("make the log")?;
    Ok(vec![
        start_file_server(shape, "root", "auto", &log)?,
        start_file_server(shape, "lower", "always", &log)?,
        start_emulator(shape, &log)?,
    ])
}

fn listen(shape: &Shape, name: &str) -> Result<OwnedFd> {
    let path = shape.dir.join(name);
    let listener =
        UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
    Ok(listener.into())
}

/// Lets the next program keep a descriptor; the caller drops it once that program runs.
fn inherit(fd: &impl AsFd) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).context("let a descriptor be inherited")?;
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "the parent's death is asked for between fork and exec"
)]
fn spawn(command: &mut Command, log: &File) -> Result<Child> {
    // SAFETY: one system call, no memory touched.
    unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)) };
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    let program = command.get_program().to_string_lossy().into_owned();
    command.spawn().with_context(|| format!("start {program}"))
}

fn start_file_server(shape: &Shape, tag: &str, cache: &str, log: &File) -> Result<Child> {
    // A socket handed over rather than named: no lock file is left in /run, and QEMU can connect at once.
    let socket = listen(shape, tag)?;
    inherit(&socket)?;
    let mut command = Command::new(FILE_SERVER);
    command.arg(format!("--fd={}", socket.as_raw_fd()));
    let cache = format!("cache={cache}");
    // The default sandbox does not work with the whole machine as source.
    for option in [
        "source=/",
        "log_level=err",
        &cache,
        "xattr",
        "allow_direct_io",
        "sandbox=chroot",
        "no_posix_lock",
    ] {
        command.args(["-o", option]);
    }
    spawn(&mut command, log)
}

fn start_emulator(shape: &Shape, log: &File) -> Result<Child> {
    let sockets = (0..PORTS)
        .map(|number| listen(shape, &port_socket(number)))
        .collect::<Result<Vec<_>>>()?;
    sockets.iter().try_for_each(inherit)?;
    let mut command = Command::new(emulator::prepare(&shape.dir)?);
    command
        .args(machine(shape))
        .args(files(shape))
        .args(ports(&sockets))
        .args(kernel(shape));
    spawn(&mut command, log)
}

fn machine(shape: &Shape) -> Vec<String> {
    let memory = shape.memory_mib;
    // One CPU: with more, sooner or later the emulated host's kernel locks up after a VMRUN.
    let mut line =
        "-nodefaults -no-user-config -display none -no-reboot -M q35 -cpu max,+svm -smp 1"
            .to_string();
    line += if shape.icount {
        " -accel tcg,tb-size=256 -icount shift=0,sleep=off"
    } else {
        " -accel tcg,thread=multi,tb-size=256"
    };
    line += &format!(
        " -m {memory}M -object memory-backend-memfd,id=mem,size={memory}M,share=on -numa node,memdev=mem"
    );
    line.split(' ').map(String::from).collect()
}

fn files(shape: &Shape) -> Vec<String> {
    let device = |tag: &str| {
        [
            "-chardev".to_string(),
            format!("socket,id={tag},path={}", shape.dir.join(tag).display()),
            "-device".to_string(),
            format!("vhost-user-fs-pci,chardev={tag},tag={tag},queue-size=1024"),
        ]
    };
    [device("root"), device("lower")].concat()
}

fn ports(sockets: &[OwnedFd]) -> Vec<String> {
    let mut arguments = vec![
        "-device".to_string(),
        format!("virtio-serial-pci,max_ports={}", PORTS + 1),
    ];
    for (number, socket) in sockets.iter().enumerate() {
        arguments.extend([
            "-chardev".to_string(),
            format!(
                "socket,id=p{number},fd={},server=on,wait=off",
                socket.as_raw_fd()
            ),
            "-device".to_string(),
            format!("virtserialport,chardev=p{number},name={PORT_NAME_PREFIX}{number}"),
        ]);
    }
    arguments
}

fn kernel(shape: &Shape) -> Vec<String> {
    let path = |name: &str| shape.dir.join(name).display().to_string();
    let mut line = "console=ttyS0 quiet panic=-1 softlockup_panic=1 mitigations=off tsc=reliable no_timer_check nokaslr audit=0".to_string();
    // Counted instructions come at the same rate whatever else the machine does.
    if !shape.icount {
        line += &format!(" tsc_early_khz={}", tsc::khz());
    }
    vec![
        "-serial".to_string(),
        format!("file:{}", path(CONSOLE)),
        "-kernel".to_string(),
        shape.kernel.join("vmlinux").display().to_string(),
        "-initrd".to_string(),
        path(super::keeper::INITRAMFS),
        "-append".to_string(),
        line,
    ]
}
