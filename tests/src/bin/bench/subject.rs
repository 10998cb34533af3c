//! The two that are compared, and what is asked of them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// The guest kernel, the same for both.
pub const KERNEL: &str = "/usr/lib/fairing/stage1-kvm/rootfs/vmlinux";
/// This program as the peer's initramfs.
pub const PEER_INITRAMFS: &str = "/root/peer-initramfs";
/// Busybox as one EROFS file.
pub const IMAGES_DISK: &str = "/root/busybox.erofs";
/// A file that holds the digest of busybox in the store.
pub const IMAGE: &str = "/root/digest";
/// Where busybox is in its image.
pub const BUSYBOX: &str = "/bin/busybox";
/// RAM of either machine, MiB: a pod's default.
pub const MEMORY_MIB: u64 = 512;

/// Tag of the peer's shared file system.
pub const PEER_TAG: &str = "data";

/// Port of POST codes; QEMU takes bytes to it and does nothing.
pub const MARK_PORT: u16 = 0x80;
/// QEMU's isa-debug-exit.
pub const END_PORT: u16 = 0xf4;
/// PID 1 runs and has /dev.
pub const MARK_INIT: u8 = 0x11;
/// The app was started.
pub const MARK_EXEC: u8 = 0x12;
/// The app's first byte was read.
pub const MARK_FIRST_BYTE: u8 = 0x13;

/// Who is measured.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// `fairing run`.
    Fairing,
    /// QEMU's microvm machine.
    Qemu,
}

/// What the app does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Says a word and ends.
    Echo,
    /// Sleeps until it is killed.
    Idle,
}

impl Subject {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Fairing, Self::Qemu];

    /// The end of the path of the program that is the VMM.
    pub fn vmm(self) -> &'static str {
        match self {
            Self::Fairing => "/stage1/rootfs/run",
            Self::Qemu => "/qemu-system-x86_64",
        }
    }

    /// The exit code of a start without fault; isa-debug-exit makes it twice the guest's and one.
    pub fn good_code(self) -> i32 {
        match self {
            Self::Fairing => 0,
            Self::Qemu => 1,
        }
    }

    /// The command that starts it, its stdout and stderr being pipes.
    pub fn command(self, job: Job) -> Result<Command> {
        let mut command = match self {
            Self::Fairing => fairing(job)?,
            Self::Qemu => qemu(job),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }
}

fn fairing(job: Job) -> Result<Command> {
    let digest = fs::read_to_string(IMAGE).with_context(|| format!("read {IMAGE}"))?;
    let mut command = Command::new("/usr/bin/fairing");
    command.args([
        "run",
        "--rm",
        "--net=none",
        "--timings",
        digest.trim(),
        "--",
        BUSYBOX,
    ]);
    command.args(match job {
        Job::Echo => ["echo", "hello"],
        Job::Idle => ["sleep", "100000"],
    });
    Ok(command)
}

/// Who serves a shared folder in QEMU's machine.
pub enum Server<'a> {
    /// virtiofsd, at this socket.
    Virtiofs(&'a str),
    /// QEMU itself, this folder.
    NineP(&'a str),
}

/// QEMU's machine with a shared folder, on whose files PID 1 works, those that are `asked` for among them.
pub fn qemu_with_shares(image: &Path, server: &Server, asked: &str) -> Command {
    let (kernel, kind) = match server {
        Server::Virtiofs(_) => ("target/stage1-kvm/rootfs/vmlinux", "virtiofs"),
        Server::NineP(_) => ("target/bench/vmlinux-9p", "9p"),
    };
    let words = format!("shares {kind} {asked}");
    let mut command = microvm(&words, kernel, image, "target/bench/initramfs");
    // The servers know no devices of before virtio 1.0, which are this machine's default.
    command.args(["-global", "virtio-mmio.force-legacy=false"]);
    match server {
        Server::Virtiofs(socket) => command
            .args([
                "-object",
                &format!("memory-backend-memfd,id=ram,size={MEMORY_MIB}M,share=on"),
            ])
            .args(["-machine", "memory-backend=ram"])
            .args(["-chardev", &format!("socket,id=server,path={socket}")])
            .args([
                "-device",
                &format!("vhost-user-fs-device,chardev=server,tag={PEER_TAG}"),
            ]),
        Server::NineP(folder) => command
            .args([
                "-fsdev",
                &format!("local,id=folder,path={folder},security_model=passthrough"),
            ])
            .args([
                "-device",
                &format!("virtio-9p-device,fsdev=folder,mount_tag={PEER_TAG}"),
            ]),
    };
    command
}

/// QEMU's machine with a card that leads to the tap `bench1`, whose PID 1 talks to its host.
pub fn qemu_with_network(image: &Path, vhost: bool) -> Command {
    let kernel = "target/stage1-kvm/rootfs/vmlinux";
    let mut command = microvm("talk", kernel, image, "target/bench/initramfs");
    command.args(["-global", "virtio-mmio.force-legacy=false"]);
    let vhost = if vhost { "on" } else { "off" };
    let tap = format!("tap,id=net,ifname=bench1,script=no,downscript=no,vhost={vhost}");
    command.args(["-netdev", &tap, "-device", "virtio-net-device,netdev=net"]);
    command
}

fn qemu(job: Job) -> Command {
    let word = if job == Job::Idle { "wait" } else { "" };
    microvm(word, KERNEL, Path::new(IMAGES_DISK), PEER_INITRAMFS)
}

/// QEMU's machine with this disk, whose PID 1 is told a word.
fn microvm(word: &str, kernel: &str, image: &Path, initramfs: &str) -> Command {
    let mut command = Command::new("/usr/bin/qemu-system-x86_64");
    // QEMU appends its devices, so what PID 1 is told stands among the kernel's words, which passes unknown ones on.
    let line = "quiet console=ttynull no_timer_check tsc=reliable reboot=k panic=-1";
    let line = format!("{line} {word}");
    command
        .args([
            "-M",
            "microvm,acpi=off,pit=off,pic=off,rtc=off,isa-serial=off",
        ])
        .args(["-enable-kvm", "-cpu", "host", "-smp", "1", "-m"])
        .arg(format!("{MEMORY_MIB}M"))
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-kernel", kernel, "-initrd", initramfs, "-append"])
        .arg(line)
        .args([
            "-drive",
            &format!(
                "id=image,file={},format=raw,if=none,readonly=on",
                image.display()
            ),
        ])
        .args(["-device", "virtio-blk-device,drive=image"])
        .args([
            "-device",
            &format!("isa-debug-exit,iobase={END_PORT:#x},iosize=1"),
        ]);
    command
}
