//! PID 1 of the peer's machine: does what guest-init and the app do in ours, without being told by the host. Mounts the
//! image's disk, runs `echo` from it, and ends the machine; says where it is by bytes to port 0x80. With `wait` as its
//! argument it then waits for ever.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::subject::{BUSYBOX, END_PORT, MARK_EXEC, MARK_FIRST_BYTE, MARK_INIT, MARK_PORT};

/// Never returns; on failure the machine ends with a code of its own.
pub fn run() -> ! {
    let code = match story() {
        Ok(()) => 0,
        Err(error) => {
            let _ = std::fs::write("/dev/kmsg", format!("<0>bench: {error:#}"));
            1
        }
    };
    if std::env::args().any(|argument| argument == "wait") {
        loop {
            std::thread::park();
        }
    }
    let _ = out(END_PORT, code);
    std::process::exit(1);
}

fn story() -> Result<()> {
    let none = None::<&str>;
    mount(
        Some("dev"),
        "/dev",
        Some("devtmpfs"),
        MsFlags::empty(),
        none,
    )
    .context("mount /dev")?;
    out(MARK_PORT, MARK_INIT)?;
    mount(
        Some("/dev/vda"),
        "/image",
        Some("erofs"),
        MsFlags::MS_RDONLY,
        none,
    )
    .context("mount the image")?;
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
