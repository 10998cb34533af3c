//! The pod's networks: interfaces that CNI plugins make in a network namespace of the pod, each joined to a tap, whose other
//! end is a card of the machine. Made before the jail, taken down by the `gc` entrypoint.
//!
//! The addresses stay on the plugins' interfaces, where CHECK looks for them, and the guest is told to have the same; since
//! all that arrives is redirected to the tap, the namespace itself never answers.

mod ports;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use cni::{Attachment, Container, Records};
use contract::{PodDir, PodManifest, RunArguments};
use guest_init::protocol;
use netlink::{Interface, Namespace, Netlink, Route};
use serde_json::{Value, json};
use vmm::layout::NETWORK_CARDS;
use vmm::net::Tap;

use self::ports::Mapping;
use crate::plan::PreparedImage;

/// Where plugins are looked for: rkt's folder, everyone's, Debian's.
const PLUGINS: [&str; 3] = ["/usr/lib/rkt/plugins/net", "/opt/cni/bin", "/usr/lib/cni"];

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
    /// The ports of the host that lead to the pod.
    pub reserved: Vec<OwnedFd>,
}

/// A card of the machine.
pub struct Card {
    /// What its cable leads to.
    pub tap: Tap,
    /// Its address on the link, which is the interface's.
    pub mac: [u8; 6],
    /// Its largest packet, bytes.
    pub mtu: u16,
    /// What the guest is told.
    pub told: protocol::Card,
}

/// What adds nothing to loopback.
const LOOPBACK: [&str; 4] = ["", "none", "default", "host"];

/// Whether the pod is to have loopback alone.
pub fn is_loopback(arguments: &RunArguments) -> bool {
    let mut networks = arguments.net.split(',');
    networks.all(|name| LOOPBACK.contains(&name))
}

/// Makes the networks that `arguments` ask for, the pod's first interface first. What has been made when one fails is taken
/// down again.
///
/// # Errors
/// When there is no such network, or a plugin fails.
pub fn set_up(
    pod: &PodDir,
    arguments: &RunArguments,
    manifest: &PodManifest,
    images: &[PreparedImage],
) -> Result<Networks> {
    if is_loopback(arguments) {
        return Ok(Networks::default());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "--net={}: networks of the host take root; without it pods have --net=none",
        arguments.net
    );
    let mappings = ports::mappings(manifest, images)?;
    let attachments = choose(arguments, &mappings);
    let attachments = attachments.with_context(|| format!("--net={}", arguments.net))?;
    let reserved = ports::reserve(&mappings)?;
    let made = make(pod, &arguments.uuid, attachments);
    let mut made = made.inspect_err(|_| give_up(pod, &arguments.uuid))?;
    made.reserved = reserved;
    Ok(made)
}

/// Takes down the networks of a pod that does not come to be; what cannot be, `gc` will.
pub fn give_up(pod: &PodDir, uuid: &str) {
    if let Err(error) = tear_down(pod, uuid) {
        crate::tell(&format!("take the pod's networks down: {error:#}"));
    }
}

/// The interfaces that the pod is to have, where `mappings` lead to its ports.
fn choose(arguments: &RunArguments, mappings: &[Mapping]) -> Result<Vec<Attachment>> {
    let mut asked: Vec<_> = arguments.net.split(',').collect();
    for name in ["none", "host"] {
        ensure!(!asked.contains(&name), "{name} goes with no other network");
    }
    asked.retain(|name| !LOOPBACK.contains(name));
    let own = arguments.local_config.as_ref();
    let own = own.map(|folder| Path::new(folder).join("net.d"));
    let folders: Vec<_> = own.into_iter().chain([NETWORKS.into()]).collect();
    let mut attachments = cni::choose(&asked, &folders)?;
    if !mappings.is_empty() {
        // The first alone: a port of the host leads to one place.
        let mut offering = attachments.iter_mut();
        let first = offering.find(|one| one.network.offers(ports::CAPABILITY));
        let first = first.context(
            "no plugin of these networks has the capability portMappings, as portmap has",
        )?;
        let capabilities = &mut first.capabilities;
        capabilities.insert(ports::CAPABILITY.into(), json!(mappings));
    }
    let count = attachments.len();
    ensure!(
        count <= usize::from(NETWORK_CARDS),
        "{count} networks; a pod has at most {NETWORK_CARDS}"
    );
    Ok(attachments)
}

fn make(pod: &PodDir, uuid: &str, attachments: Vec<Attachment>) -> Result<Networks> {
    // What is to be taken down is written down before it is made.
    let mut records = Records::create(&pod.networks(), attachments)?;
    let namespace = Namespace::create(&namespace_of(uuid))?;
    let container = container(uuid, Some(&namespace));
    records.add(|attachment, keep| attachment.add(&container, keep))?;
    let interfaces = records
        .attachments()
        .map(|attachment| &*attachment.interface);
    let interfaces: Vec<_> = interfaces.collect();
    let mut networks = namespace.inside(|| join(&interfaces))?;
    networks.resolv = cni::resolv(records.attachments())?;
    cni::replace(
        &pod.network_info(),
        &network_info(&records, &networks.cards),
    )?;
    Ok(networks)
}

/// Joins what plugins have made in the calling thread's network namespace to taps.
fn join(interfaces: &[&str]) -> Result<Networks> {
    let netlink = Netlink::open()?;
    let found = interfaces.iter().map(|name| netlink.interface(name));
    let found = found.collect::<Result<Vec<_>>>()?;
    let routes = netlink.routes()?.into_iter().filter_map(|(by, route)| {
        let card = found.iter().position(|interface| interface.index == by)?;
        Some((u8::try_from(card).ok()?, route))
    });
    let routes = routes.collect();
    let cards = interfaces.iter().zip(&found).map(|(name, interface)| {
        card(&netlink, name, *interface).with_context(|| format!("interface {name}"))
    });
    let cards = cards.collect::<Result<Vec<_>>>()?;
    Ok(Networks {
        cards,
        routes,
        ..Networks::default()
    })
}

fn card(netlink: &Netlink, name: &str, interface: Interface) -> Result<Card> {
    let tap_name = format!("tap-{name}");
    let tap = Tap::create(&tap_name)?;
    let tap_index = netlink.interface(&tap_name)?.index;
    netlink.set_up(tap_index)?;
    netlink.join(interface.index, tap_index)?;
    Ok(Card {
        tap,
        mac: interface.mac,
        mtu: u16::try_from(interface.mtu).unwrap_or(u16::MAX),
        told: protocol::Card {
            interface: name.to_owned(),
            addresses: netlink.addresses(interface.index)?,
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
    let namespace = Namespace::find(&namespace_of(uuid));
    let container = container(uuid, namespace.as_ref());
    records.delete(|attachment| attachment.delete(&container))?;
    namespace.map_or(Ok(()), Namespace::delete)?;
    records.forget()
}

/// What the pod's network namespace is called.
fn namespace_of(uuid: &str) -> String {
    format!("fairing-{uuid}")
}

fn container(uuid: &str, namespace: Option<&Namespace>) -> Container {
    Container {
        id: uuid.to_owned(),
        namespace: namespace.and_then(Namespace::path).map(ToOwned::to_owned),
        plugins: PLUGINS.map(|path| Path::new(path).to_owned()).into(),
    }
}

/// `net-info.json`: which addresses the pod has (contract section 1.5).
fn network_info(records: &Records, cards: &[Card]) -> Vec<Value> {
    let told = records.attachments().zip(cards).enumerate();
    let told = told.map(|(number, (attachment, card))| {
        let first = card
            .told
            .addresses
            .iter()
            .find_map(|address| match address.ip {
                IpAddr::V4(ip) => Some((ip, address.prefix)),
                IpAddr::V6(_) => None,
            });
        let mask = |prefix: u8| {
            let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            Ipv4Addr::from(!host)
        };
        json!({
            "netName": attachment.network.name,
            "netConf": records.path(number),
            "pluginPath": "",
            "ifName": attachment.interface,
            "ip": first.map_or(String::new(), |(ip, _)| ip.to_string()),
            "args": attachment.arguments,
            "mask": first.map_or(String::new(), |(_, prefix)| mask(prefix).to_string()),
        })
    });
    told.collect()
}
