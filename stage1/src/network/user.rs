//! The host's networks by a program without privileges. It lies in the pod's cgroup, and ends with the pod's process.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Result;
use cni::Mapping;
use guest_init::protocol::{self, Limits};
use serde_json::json;
use vmm::net::{HEADER_BYTES, Link};

use super::{Cable, Card, Networks, gateway};

/// What users are told of it.
pub const PATH: &str = "user mode, by passt: without privileges; each byte costs the host more, and of ICMP there are echoes alone";

/// What it takes of what the pod's cgroup has, most of it for what waits in sockets, and processes.
const MEMORY_BYTES: u64 = 64 << 20;
const PROCESSES: u32 = 4;

/// The machine's address on the cable; the host's is that of an interface of its own.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The end of its cable, as a card has it. Frames are whole on either way: nobody at the other end would finish them.
pub struct Passt(passt::Stream);

impl AsFd for Passt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Link for Passt {
    fn offloads(&self) -> u64 {
        0
    }

    fn set_offloads(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        let (header, content) = frame.split_at_mut(HEADER_BYTES);
        header.fill(0);
        Ok(HEADER_BYTES + self.0.receive(content)?)
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame.get(HEADER_BYTES..).unwrap_or_default())
    }
}

/// Makes room for it in what the host caps the pod at.
pub fn make_room(caps: &mut Limits) {
    caps.memory_bytes = caps.memory_bytes.map(|bytes| bytes + MEMORY_BYTES);
    caps.processes = caps.processes.map(|processes| processes + PROCESSES);
}

/// Starts it, with `mappings` from ports of the host's. If it is `open`, the pod reaches what listens on the host's loopback, at the gateway's
/// address. None if this host has no way out.
///
/// # Errors
/// When it cannot be had, or a port is taken.
pub fn set_up(mappings: &[Mapping], open: bool) -> Result<Option<Networks>> {
    // It takes them itself, a moment later, but may get by with one of several addresses.
    cni::look_free(mappings)?;
    let forwards: Vec<_> = mappings.iter().flat_map(forward).collect();
    let Some(cable) = passt::start(&forwards, open)? else {
        return Ok(None);
    };
    let mut dns = cni::name_servers();
    if dns["nameservers"].is_null() && cable.addresses.iter().any(|address| address.ip.is_ipv4()) {
        dns["nameservers"] = json!([passt::NAME_SERVER]);
    }
    let card = Card {
        cable: Cable::Passt(Passt(cable.stream)),
        mac: MAC,
        mtu: passt::MTU,
        told: protocol::Card {
            interface: "eth0".into(),
            addresses: cable.addresses,
            neighbours: Vec::new(),
        },
    };
    Ok(Some(Networks {
        cards: vec![card],
        host: gateway(cable.routes.iter()).filter(|_| open),
        routes: cable.routes.into_iter().map(|route| (0, route)).collect(),
        resolv: Some(cni::resolv_conf(&dns)?),
        ..Networks::default()
    }))
}

/// What passt is told of a mapping.
fn forward(mapping: &Mapping) -> [String; 2] {
    let ports = match &*mapping.protocol {
        "udp" => "--udp-ports",
        _ => "--tcp-ports",
    };
    let ip = mapping
        .host_ip
        .map_or(String::new(), |ip: IpAddr| format!("{ip}/"));
    let (host, own) = (mapping.host_port, mapping.container_port);
    [ports.into(), format!("{ip}{host}:{own}")]
}
