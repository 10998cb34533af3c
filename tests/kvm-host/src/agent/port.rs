//! One virtio-serial port: waits for a client, greets it, runs its command, waits for the next.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::session;
use crate::wire::greeting;
use crate::wire::link::{Arrival, Link, read_once};
use crate::wire::spec::PORT_NAME_PREFIX;

const CONNECTION_DEADLINE: Duration = Duration::from_secs(2);

/// Serves one client after another; returns only on a failure.
pub fn serve(number: usize) -> Result<()> {
    let path = find(number)?;
    let mut options = fs::File::options();
    let file = options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(&path);
    let mut port: OwnedFd = file
        .with_context(|| format!("open {}", path.display()))?
        .into();
    let changes = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    // Edge-triggered: a port without a client reads as hung up all the time.
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLET;
    changes.add(&port, EpollEvent::new(flags, 0))?;
    for serial in 0.. {
        let (nonce, rest) = wait_for_client(&port, &changes)?;
        wait_for_connection(&port, &changes)?;
        let mut link = Link::new(port, &rest);
        link.outbox.push(&greeting::welcome(&nonce));
        if let Err(error) = session::serve(&mut link, number, serial) {
            eprintln!("on-kvm agent, port {number}: {error:#}");
        }
        port = link.into_fd();
    }
    Ok(())
}

fn wait_for_client(port: &OwnedFd, changes: &Epoll) -> Result<(greeting::Nonce, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Arrival::Bytes = read_once(port.as_fd(), &mut bytes)? {
            if let Some(nonce) = greeting::find_hello(&mut bytes) {
                return Ok((nonce, bytes));
            }
            continue;
        }
        match changes.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for a client"),
        }
    }
}

/// The word that a client has connected may come after its first bytes; till then the port reads as hung up.
fn wait_for_connection(port: &OwnedFd, changes: &Epoll) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < CONNECTION_DEADLINE {
        let mut fds = [PollFd::new(port.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).context("look at the port")?;
        if fds.iter().all(|fd| {
            !fd.revents()
                .is_some_and(|found| found.contains(PollFlags::POLLHUP))
        }) {
            return Ok(());
        }
        match changes.wait(&mut [EpollEvent::empty()], EpollTimeout::from(20_u8)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for a client's connection"),
        }
    }
    Ok(())
}

/// The device of the port that the keeper named for this number.
fn find(number: usize) -> Result<PathBuf> {
    let wanted = format!("{PORT_NAME_PREFIX}{number}");
    for entry in fs::read_dir("/sys/class/virtio-ports").context("list the virtio-serial ports")? {
        let entry = entry?;
        if fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim_end() == wanted)
        {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    bail!("no virtio-serial port is named {wanted}")
}
