//! Sends two messages to /dev/log, with the second sockets whose closing takes an hour: connections with bytes under way that their
//! other end, which comes along, does not read.

use std::io::{IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt::Linger};

fn main() -> Result<()> {
    let log = UnixDatagram::unbound()?;
    log.connect("/dev/log").context("find /dev/log")?;
    log.send(b"<13>before")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // In whatever order they are closed, of one pair the end that lingers comes first.
    let (first, second) = connection(&listener)?;
    let (fourth, third) = connection(&listener)?;
    let sockets = [&first, &second, &third, &fourth].map(AsRawFd::as_raw_fd);
    let text = [IoSlice::new(b"<13>with sockets")];
    let rights = [ControlMessage::ScmRights(&sockets)];
    sendmsg::<()>(log.as_raw_fd(), &text, &rights, MsgFlags::empty(), None)?;
    println!("sent");
    Ok(())
}

/// An end whose closing takes an hour, and the one that does not read.
fn connection(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 3600,
    };
    setsockopt(&sender, Linger, &linger)?;
    sender.set_nonblocking(true)?;
    while sender.write(&[0; 64 << 10]).is_ok() {}
    Ok((sender, listener.accept()?.0))
}
