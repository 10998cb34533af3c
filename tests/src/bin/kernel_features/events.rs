//! Event loops: epoll and the descriptors it waits for, file watchers, and the two asynchronous I/O interfaces.

use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::sys::inotify::{AddWatchFlags, Inotify};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::SignalFd;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::raw;

pub const FEATURES: &[crate::Feature] = &[
    ("epoll_eventfd", epoll_eventfd),
    ("timerfd", timerfd),
    ("signalfd", signalfd),
    ("pidfd", pidfd),
    ("inotify", inotify),
    ("fanotify", fanotify),
    ("fanotify_permission", fanotify_permission),
    ("aio", aio),
    ("io_uring", io_uring),
];

fn epoll_eventfd() -> Result<()> {
    let event = EventFd::new().context("eventfd2")?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll_create1")?;
    epoll
        .add(&event, EpollEvent::new(EpollFlags::EPOLLIN, 7))
        .context("epoll_ctl")?;
    event.write(1)?;
    let mut ready = [EpollEvent::empty()];
    ensure!(
        epoll.wait(&mut ready, EpollTimeout::from(1000u16))? == 1,
        "no event within a second"
    );
    ensure!(ready[0].data() == 7, "the event of another descriptor");
    Ok(())
}

fn timerfd() -> Result<()> {
    let timer =
        TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).context("timerfd_create")?;
    let expiration = Expiration::OneShot(Duration::from_millis(1).into());
    timer
        .set(expiration, TimerSetTimeFlags::empty())
        .context("timerfd_settime")?;
    timer.wait().context("read the timer")
}

fn signalfd() -> Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR1);
    mask.thread_block()?;
    let descriptor = SignalFd::new(&mask).context("signalfd4")?;
    raise(Signal::SIGUSR1)?;
    let signal = descriptor.read_signal()?.context("no signal")?;
    ensure!(
        signal.ssi_signo == Signal::SIGUSR1 as u32,
        "signal {}",
        signal.ssi_signo
    );
    Ok(())
}

fn pidfd() -> Result<()> {
    raw::open_descriptor(libc::SYS_pidfd_open, [i64::from(std::process::id()), 0])
        .context("pidfd_open")
        .map(drop)
}

fn inotify() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let watcher =
        Inotify::init(nix::sys::inotify::InitFlags::IN_CLOEXEC).context("inotify_init1")?;
    watcher
        .add_watch(folder.path(), AddWatchFlags::IN_CREATE)
        .context("inotify_add_watch")?;
    std::fs::write(folder.path().join("new"), "")?;
    let events = watcher.read_events()?;
    ensure!(
        events
            .iter()
            .any(|event| event.name.as_deref() == Some("new".as_ref())),
        "no event for the new file"
    );
    Ok(())
}

fn fanotify() -> Result<()> {
    watch_for(InitFlags::FAN_CLASS_NOTIF, MaskFlags::FAN_CLOSE_WRITE)
}

/// Only marks: an access that waited for an answer would wait for this very process.
fn fanotify_permission() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let watcher = Fanotify::init(InitFlags::FAN_CLASS_CONTENT, EventFFlags::O_RDONLY)
        .context("fanotify_init")?;
    let mask = MaskFlags::FAN_OPEN_PERM;
    watcher
        .mark(
            MarkFlags::FAN_MARK_ADD,
            mask,
            nix::fcntl::AT_FDCWD,
            Some(folder.path()),
        )
        .context("fanotify_mark")
}

fn watch_for(class: InitFlags, mask: MaskFlags) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let watcher = Fanotify::init(class, EventFFlags::O_RDONLY).context("fanotify_init")?;
    watcher
        .mark(
            MarkFlags::FAN_MARK_ADD,
            mask,
            nix::fcntl::AT_FDCWD,
            Some(file.path()),
        )
        .context("fanotify_mark")?;
    std::fs::write(file.path(), "changed")?;
    ensure!(
        watcher
            .read_events()?
            .iter()
            .any(|event| event.mask().contains(mask)),
        "no event for the written file"
    );
    Ok(())
}

fn aio() -> Result<()> {
    let file = tempfile::tempfile()?;
    let written = raw::aio_write(file.as_raw_fd(), b"kernel aio")?;
    ensure!(written == 10, "wrote {written} of 10 bytes");
    contains(file, b"kernel aio")
}

fn io_uring() -> Result<()> {
    let mut ring = io_uring::IoUring::new(2).context("io_uring_setup")?;
    let file = tempfile::tempfile()?;
    let text = b"io_uring";
    let write =
        io_uring::opcode::Write::new(io_uring::types::Fd(file.as_raw_fd()), text.as_ptr(), 8)
            .build();
    raw::submit(&mut ring, &write)?;
    ring.submit_and_wait(1).context("io_uring_enter")?;
    let result = ring.completion().next().context("no completion")?.result();
    ensure!(result == 8, "completion says {result}");
    contains(file, text)
}

fn contains(mut file: std::fs::File, expected: &[u8]) -> Result<()> {
    let mut found = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut found)?;
    ensure!(found == expected, "the file holds other bytes");
    Ok(())
}
