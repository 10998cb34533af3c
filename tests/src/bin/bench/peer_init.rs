//! PID 1 of the peer's machine: does what guest-init and the app do in ours, without being told by the host. Mounts the
//! image's disk, runs `echo` from it, and ends the machine; says where it is by bytes to port 0x80. With `wait` as its
//! argument it then waits for ever; with `shares` it works on a shared folder instead.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, chroot};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::networks::talk_as_peer;
use crate::shared_work::{self, LARGE};
use crate::shares::{FIGURES, PLACE};
use crate::subject::{
    BUSYBOX, END_PORT, MARK_EXEC, MARK_FIRST_BYTE, MARK_INIT, MARK_PORT, PEER_TAG,
};

/// Never returns; on failure the machine ends with a code of its own.
pub fn run() -> ! {
    let done = match () {
        () if is_told("shares") => shares(),
        () if is_told("talk") => attach("devtmpfs", "dev", "/dev").and_then(|()| talk_as_peer()),
        () => story(),
    };
    let code = match done {
        Ok(()) => 0,
        Err(error) => {
            let _ = std::fs::write("/dev/kmsg", format!("<0>bench: {error:#}"));
            1
        }
    };
    if is_told("wait") {
        loop {
            std::thread::park();
        }
    }
    let _ = out(END_PORT, code);
    std::process::exit(1);
}

fn is_told(word: &str) -> bool {
    std::env::args().any(|argument| argument == word)
}

/// A file system at a folder.
fn attach(kind: &str, source: &str, folder: &str) -> Result<()> {
    let flags = if kind == "erofs" {
        MsFlags::MS_RDONLY
    } else {
        MsFlags::empty()
    };
    // Keeps what it knows, as the others with `always`; requests as large as virtio-fs's would be.
    let options =
        (kind == "9p").then_some("trans=virtio,version=9p2000.L,cache=loose,msize=524288");
    mount(Some(source), folder, Some(kind), flags, options)
        .with_context(|| format!("mount {kind} at {folder}"))
}

/// Works on the shared folder with the image as root, and leaves the figures in it.
fn shares() -> Result<()> {
    attach("devtmpfs", "dev", "/dev")?;
    attach("erofs", "/dev/vda", "/image")?;
    for (kind, folder) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("tmpfs", "/tmp")] {
        attach(kind, kind, &format!("/image{folder}"))?;
    }
    // The database's shared memory.
    fs::create_dir_all("/image/dev/shm")?;
    attach("tmpfs", "tmpfs", "/image/dev/shm")?;
    let kind = if is_told("9p") { "9p" } else { "virtiofs" };
    attach(kind, PEER_TAG, &format!("/image{PLACE}"))?;
    chroot("/image").context("enter the image")?;
    std::env::set_current_dir("/")?;
    let asked = if is_told(LARGE) { LARGE } else { "" };
    let worked = shared_work::run(PLACE, asked)?;
    fs::write(
        format!("{PLACE}/{FIGURES}"),
        serde_json::to_string(&worked)?,
    )
    .context("leave the figures")
}

fn story() -> Result<()> {
    attach("devtmpfs", "dev", "/dev")?;
    out(MARK_PORT, MARK_INIT)?;
    attach("erofs", "/dev/vda", "/image")?;
    let mut app = Command::new(format!("/image{BUSYBOX}"))
        .args(["echo", "hello"])
        .stdout(Stdio::piped())
        .spawn()
        .context("start the app")?;
    out(MARK_PORT, MARK_EXEC)?;
    let mut byte = [0];
    app.stdout
        .take()
        .context("the app's stdout")?
        .read_exact(&mut byte)?;
    out(MARK_PORT, MARK_FIRST_BYTE)?;
    app.wait()?;
    Ok(())
}

fn out(port: u16, value: u8) -> Result<()> {
    let ports = OpenOptions::new()
        .write(true)
        .open("/dev/port")
        .context("open /dev/port")?;
    ports
        .write_at(&[value], port.into())
        .context("write a port")?;
    Ok(())
}
