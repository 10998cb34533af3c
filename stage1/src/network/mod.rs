//! The pod's networks. Most are interfaces that CNI plugins make in a network namespace of the pod, each joined to a tap, whose other
//! end is a card of the machine. Made before the jail, taken down by the `gc` entrypoint. The host's own networks, and those of
//! whoever is not root, a pod has by a program (`user`).
//!
//! The addresses stay on the plugins' interfaces, where CHECK looks for them, and the guest is told to have the same; since
//! all that arrives is redirected to the tap, the namespace itself never answers.

mod ports;
pub mod user;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use cni::{Attachment, Container, Mapping, Records};
use contract::{PodDir, PodManifest, RunArguments, network_namespace};
use guest_init::protocol;
use netlink::{Interface, Namespace, Netlink, Route};
use serde_json::{Value, json};
use vmm::layout::NETWORK_CARDS;
use vmm::net::Tap;

use crate::limits;
use crate::plan::PreparedImage;

/// What users are told of interfaces that plugins make.
const PATH: &str = "interfaces of its own, by plugins: what the host forwards, for root alone";

/// Where everyone's networks are described.
const NETWORKS: &str = "/etc/cni/net.d";

/// What the pod has of its networks.
#[derive(Default)]
pub struct Networks {
    /// The machine's cards, in order.
    pub cards: Vec<Card>,
    /// The ways by them, each with the number of its card.
    pub routes: Vec<(u8, Route)>,
    /// What apps are to have as /etc/resolv.conf, if a plugin says so.
    pub resolv: Option<String>,
    /// Where the pod reaches its host.
    pub host: Option<IpAddr>,
    /// The ports of the host that lead to the pod.
    pub reserved: Vec<OwnedFd>,
}

/// A card of the machine.
pub struct Card {
    /// What its cable leads to.
    pub cable: Cable,
    /// Its address on the link, which is the interface's.
    pub mac: [u8; 6],
    /// Its largest packet, bytes.
    pub mtu: u16,
    /// What the guest is told.
    pub told: protocol::Card,
}

/// What the cable of a card leads to.
pub enum Cable {
    /// An interface, by one or several queues.
    Taps(Vec<Tap>),
    /// A program.
    Passt(user::Passt),
}

/// Most queues of a card, each way, for each is a thread.
pub const MOST_QUEUES: u8 = 8;

/// Packets that wait for a machine at most, by all queues of a card: the kernel's own for a tap of one.
const WAITING_PACKETS: u32 = 500;

/// What adds nothing to loopback.
const LOOPBACK: [&str; 2] = ["", "none"];

/// What goes with no other network.
const ALONE: [&str; 3] = ["none", HOST, "user"];

/// The host's networks, with those ports of the host that apps name.
const HOST: &str = "host";

/// How a pod is on the networks that it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// On none.
    Loopback,
    /// On the host's, by a program without privileges.
    User,
    /// By interfaces of its own, which plugins make.
    Plugins,
}

impl Way {
    /// The way of `arguments`, for `root` or another user.
    pub fn of(arguments: &RunArguments, root: bool) -> Self {
        let by_program: &[_] = match root {
            true => &[HOST, "user"],
            false => &[HOST, "user", cni::DEFAULT],
        };
        let mut names: Vec<_> = arguments.net.split(',').collect();
        names.dedup();
        match names[..] {
            [name] if by_program.contains(&name) => Self::User,
            _ if names.iter().all(|name| LOOPBACK.contains(name)) => Self::Loopback,
            _ => Self::Plugins,
        }
    }
}

/// Makes the networks that `arguments` ask for, the pod's first interface first, with queues for a machine of so many `cpus`. What has been
/// made when one fails is taken down again.
///
/// # Errors
/// When there is no such network, or a plugin fails.
pub fn set_up(
    pod: &PodDir,
    arguments: &RunArguments,
    manifest: &PodManifest,
    images: &[PreparedImage],
    cpus: u8,
) -> Result<Networks> {
    let root = nix::unistd::geteuid().is_root();
    match Way::of(arguments, root) {
        Way::Loopback => return Ok(Networks::default()),
        Way::User => return by_program(pod, arguments, manifest, images),
        Way::Plugins => {}
    }
    ensure!(
        root,
        "--net={}: networks of the host take root; without it there are default, host, user and none",
        arguments.net
    );
    let mappings = ports::mappings(manifest, images)?;
    let attachments = choose(arguments, &mappings, limits::network_bytes(manifest)?);
    let attachments = attachments.with_context(|| format!("--net={}", arguments.net))?;
    let reserved = cni::reserve(&mappings)?;
    let made = make(pod, &arguments.uuid, attachments, cpus.min(MOST_QUEUES));
    let mut made = made.inspect_err(|_| give_up(pod, &arguments.uuid))?;
    made.reserved = reserved;
    Ok(made)
}

/// What a pod has by a program without privileges.
fn by_program(
    pod: &PodDir,
    arguments: &RunArguments,
    manifest: &PodManifest,
    images: &[PreparedImage],
) -> Result<Networks> {
    let name = arguments.net.split(',').next().unwrap_or(HOST);
    let mut mappings = ports::mappings(manifest, images)?;
    if name == HOST {
        for own in ports::own(manifest, images)? {
            let is_same = |other: &Mapping| {
                (&other.protocol, other.host_port) == (&own.protocol, own.host_port)
            };
            if mappings.iter().any(is_same) {
                continue;
            }
            match cni::look_free(std::slice::from_ref(&own)) {
                Ok(()) => mappings.push(own),
                // An image may name ports that nothing of it listens at.
                Err(error) => crate::tell(&format!(
                    "warning: the host's port does not lead to the pod: {error:#}"
                )),
            }
        }
    }
    let made = user::set_up(&mappings, name == HOST);
    let made = made.with_context(|| format!("--net={name} (--net=none is loopback alone)"))?;
    let Some(made) = made else {
        ensure!(
            name == cni::DEFAULT && mappings.is_empty(),
            "--net={name}: this host has no default route by an interface with an address"
        );
        crate::tell("warning: this host has no default route: the pod has loopback alone");
        return Ok(Networks::default());
    };
    let told = made.cards.iter().map(|card| {
        let mut entry = entry(name, card);
        entry["path"] = json!(user::PATH);
        entry
    });
    cni::replace(&pod.network_info(), &told.collect::<Vec<_>>())?;
    Ok(made)
}

/// Takes down the networks of a pod that does not come to be; what cannot be, `gc` will.
pub fn give_up(pod: &PodDir, uuid: &str) {
    if let Err(error) = tear_down(pod, uuid) {
        crate::tell(&format!("take the pod's networks down: {error:#}"));
    }
}

/// The interfaces that the pod is to have, where `mappings` lead to its ports, and by which it may send, and receive, so many `bytes` in a second.
fn choose(
    arguments: &RunArguments,
    mappings: &[Mapping],
    bytes: Option<u64>,
) -> Result<Vec<Attachment>> {
    let mut asked: Vec<_> = arguments.net.split(',').collect();
    for name in ALONE {
        ensure!(!asked.contains(&name), "{name} goes with no other network");
    }
    asked.retain(|name| !LOOPBACK.contains(name));
    let own = arguments.local_config.as_ref();
    let own = own.map(|folder| Path::new(folder).join("net.d"));
    let folders: Vec<_> = own.into_iter().chain([NETWORKS.into()]).collect();
    let built_in = cni::built_in(!mappings.is_empty())?;
    let mut attachments = cni::choose(&asked, &folders, built_in)?;
    if let Some(bytes) = bytes {
        cni::limit(&mut attachments, bytes);
    }
    cni::lead(&mut attachments, mappings)?;
    let count = attachments.len();
    ensure!(
        count <= usize::from(NETWORK_CARDS),
        "{count} networks; a pod has at most {NETWORK_CARDS}"
    );
    Ok(attachments)
}

fn make(pod: &PodDir, uuid: &str, attachments: Vec<Attachment>, queues: u8) -> Result<Networks> {
    // What is to be taken down is written down before it is made.
    let mut records = Records::create(&pod.networks(), attachments)?;
    let namespace = Namespace::create(&network_namespace(uuid))?;
    let container = Container::new(uuid, namespace.path());
    records.add(|attachment, keep| attachment.add(&container, keep))?;
    let interfaces = records
        .attachments()
        .map(|attachment| &*attachment.interface);
    let interfaces: Vec<_> = interfaces.collect();
    let mut networks = namespace.inside(|| join(&interfaces, queues))?;
    networks.resolv = cni::resolv(records.attachments())?;
    cni::replace(
        &pod.network_info(),
        &network_info(&records, &networks.cards),
    )?;
    Ok(networks)
}

/// Joins what plugins have made in the calling thread's network namespace to taps, each of so many queues.
fn join(interfaces: &[&str], queues: u8) -> Result<Networks> {
    let netlink = Netlink::open()?;
    let found = interfaces.iter().map(|name| netlink.interface(name));
    let found = found.collect::<Result<Vec<_>>>()?;
    let routes = netlink.routes()?.into_iter().filter_map(|(by, route)| {
        let card = found.iter().position(|interface| interface.index == by)?;
        Some((u8::try_from(card).ok()?, route))
    });
    let routes: Vec<_> = routes.collect();
    let cards = interfaces.iter().zip(&found).map(|(name, interface)| {
        card(&netlink, name, *interface, queues).with_context(|| format!("interface {name}"))
    });
    let cards = cards.collect::<Result<Vec<_>>>()?;
    Ok(Networks {
        cards,
        host: gateway(routes.iter().map(|(_, route)| route)),
        routes,
        ..Networks::default()
    })
}

/// The first that passes packets on, which is the host itself where a network is the host's own.
fn gateway<'a>(mut routes: impl Iterator<Item = &'a Route>) -> Option<IpAddr> {
    routes.find_map(|route| route.gateway.filter(IpAddr::is_ipv4))
}

/// Where a pod that reaches its `host` finds the metadata service (contract section 3.5).
pub fn metadata_url(host: IpAddr, token: &str) -> String {
    format!("http://{host}:18112/{token}")
}

fn card(netlink: &Netlink, name: &str, interface: Interface, queues: u8) -> Result<Card> {
    let tap_name = format!("tap-{name}");
    let tap = netlink::tap(&tap_name, queues.into())?;
    let taps = tap.into_iter().map(Tap::new).collect::<Result<_, _>>();
    let tap_index = netlink.interface(&tap_name)?.index;
    netlink.set_queue_length(tap_index, WAITING_PACKETS / u32::from(queues))?;
    netlink.set_up(tap_index)?;
    netlink.join(interface.index, tap_index)?;
    Ok(Card {
        cable: Cable::Taps(taps.with_context(|| format!("set up {tap_name}"))?),
        mac: interface.mac,
        mtu: u16::try_from(interface.mtu).unwrap_or(u16::MAX),
        told: protocol::Card {
            interface: name.to_owned(),
            addresses: netlink.addresses(interface.index)?,
            neighbours: netlink.neighbours(interface.index)?,
        },
    })
}

/// Takes down what is left of the pod's networks, if anything is.
///
/// # Errors
/// What the first plugin to fail says; what could be taken down is.
pub fn tear_down(pod: &PodDir, uuid: &str) -> Result<()> {
    let Some(mut records) = Records::read(&pod.networks())? else {
        return Ok(());
    };
    let namespace = Namespace::find(&network_namespace(uuid));
    let container = Container::new(uuid, namespace.as_ref().and_then(Namespace::path));
    records.delete(|attachment| attachment.delete(&container))?;
    namespace.map_or(Ok(()), Namespace::delete)?;
    records.forget()
}

/// `net-info.json`: which addresses the pod has (contract section 1.5).
fn network_info(records: &Records, cards: &[Card]) -> Vec<Value> {
    let told = records.attachments().zip(cards).enumerate();
    let told = told.map(|(number, (attachment, card))| {
        let mut entry = entry(&attachment.network.name, card);
        entry["netConf"] = json!(records.path(number));
        entry["args"] = json!(attachment.arguments);
        entry["path"] = json!(PATH);
        entry
    });
    told.collect()
}

/// What is told of one card, which is on the network `name`: as rkt has it, and the first address by IPv6.
fn entry(name: &str, card: &Card) -> Value {
    let addresses = || card.told.addresses.iter();
    let first = addresses().find_map(|address| match address.ip {
        IpAddr::V4(ip) => Some((ip, address.prefix)),
        IpAddr::V6(_) => None,
    });
    let mask = |prefix: u8| {
        let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        Ipv4Addr::from(!host)
    };
    json!({
        "netName": name,
        "netConf": "",
        "pluginPath": "",
        "ifName": card.told.interface,
        "ip": first.map_or(String::new(), |(ip, _)| ip.to_string()),
        "args": "",
        "mask": first.map_or(String::new(), |(_, prefix)| mask(prefix).to_string()),
        "ip6": addresses().map(|address| address.ip).find(IpAddr::is_ipv6),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn way_is_by_a_program_for_the_hosts_networks_and_for_users() {
        let way = |net: &str, root| {
            let arguments = RunArguments {
                net: net.into(),
                ..RunArguments::default()
            };
            Way::of(&arguments, root)
        };
        for (net, of_root, of_others) in [
            ("none", Way::Loopback, Way::Loopback),
            ("default", Way::Plugins, Way::User),
            ("host", Way::User, Way::User),
            ("user", Way::User, Way::User),
            ("default-restricted", Way::Plugins, Way::Plugins),
            ("default,other", Way::Plugins, Way::Plugins),
            ("host,other", Way::Plugins, Way::Plugins),
            ("user,host", Way::Plugins, Way::Plugins),
            ("default,default", Way::Plugins, Way::User),
        ] {
            assert_eq!(
                (way(net, true), way(net, false)),
                (of_root, of_others),
                "{net}"
            );
        }
    }
}
