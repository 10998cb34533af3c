//! Communication between processes: System V, POSIX queues, sockets, and memory of another process.

use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use nix::mqueue::{MQ_OFlag, MqAttr, mq_open, mq_receive, mq_send, mq_unlink};
use nix::sys::stat::Mode;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};

use crate::containers::{in_user_namespace_with, mount};
use crate::raw;

pub const FEATURES: &[crate::Feature] = &[
    ("sysv_shared_memory", raw::sysv_shared_memory),
    ("sysv_semaphores", sysv_semaphores),
    ("sysv_messages", sysv_messages),
    ("posix_queue", posix_queue),
    ("posix_queue_mount", posix_queue_mount),
    ("unix_socket", unix_socket),
    ("process_vm_readv", process_memory),
];

fn sysv_semaphores() -> Result<()> {
    raw::sysv_semaphores(17) // what PostgreSQL asks for at a time
}

fn sysv_messages() -> Result<()> {
    ensure!(
        raw::sysv_message(*b"messages")? == *b"messages",
        "another message came out"
    );
    Ok(())
}

fn posix_queue() -> Result<()> {
    let name = format!("/kernel-features-{}", std::process::id());
    let attributes = MqAttr::new(0, 4, 64, 0);
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_RDWR;
    let queue =
        mq_open(name.as_str(), flags, Mode::S_IRWXU, Some(&attributes)).context("mq_open")?;
    mq_send(&queue, b"text", 1).context("mq_send")?;
    let (mut text, mut priority) = ([0; 64], 0);
    let length = mq_receive(&queue, &mut text, &mut priority).context("mq_receive")?;
    mq_unlink(name.as_str()).context("mq_unlink")?;
    ensure!(
        &text[..length] == b"text" && priority == 1,
        "another message came out"
    );
    Ok(())
}

fn posix_queue_mount() -> Result<()> {
    in_user_namespace_with(nix::sched::CloneFlags::CLONE_NEWIPC)?;
    let folder = tempfile::tempdir()?;
    mount("mqueue", folder.path(), "mqueue", "")?;
    fs::write(folder.path().join("queue"), "")
        .or_else(|_| fs::File::create(folder.path().join("queue")).map(drop))?;
    ensure!(
        fs::read_to_string(folder.path().join("queue"))?.contains("QSIZE"),
        "no figures in the queue's file"
    );
    Ok(())
}

fn unix_socket() -> Result<()> {
    let (mut one, mut other) = UnixStream::pair().context("socketpair")?;
    one.write_all(b"text")?;
    let mut text = [0; 4];
    other.read_exact(&mut text)?;
    ensure!(&text == b"text", "other bytes came out");
    Ok(())
}

fn process_memory() -> Result<()> {
    let source = *b"process memory";
    let mut target = [0; 14];
    let remote = RemoteIoVec {
        base: source.as_ptr().expose_provenance(),
        len: source.len(),
    };
    process_vm_readv(
        nix::unistd::getpid(),
        &mut [IoSliceMut::new(&mut target)],
        &[remote],
    )
    .context("read own memory")?;
    ensure!(source == target, "other bytes came out");
    Ok(())
}
