//! The pod's networks: interfaces that CNI plugins make in a network namespace of the pod, each joined to a tap, whose other
//! end is a card of the machine. Made before the jail, taken down by the `gc` entrypoint.
//!
//! The addresses stay on the plugins' interfaces, where CHECK looks for them, and the guest is told to have the same; since
//! all that arrives is redirected to the tap, the namespace itself never answers.

mod choice;
mod namespace;
mod ports;
mod record;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cni::{Attachment, Container};
use contract::{PodDir, PodManifest, RunArguments};
use guest_init::protocol;
use netlink::{Interface, Netlink, Route};
use vmm::layout::NETWORK_CARDS;
use vmm::net::Tap;

use self::namespace::Namespace;
use self::record::Records;
use crate::plan::PreparedImage;

/// Where plugins are looked for: rkt's folder, everyone's, Debian's.
const PLUGINS: [&str; 3] = ["/usr/lib/rkt/plugins/net", "/opt/cni/bin", "/usr/lib/cni"];

/// What the pod has of its networks.
#[derive(Default)]
pub struct Networks {
    /// The machine's cards, in order.
    pub cards: Vec<Card>,
    /// The ways by them, each with the number of its card.
    pub routes: Vec<(u8, Route)>,
    /// What apps are to have as /etc/resolv.conf, if a plugin says so and the pod takes it.
    pub resolv: Option<String>,
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

/// Whether the pod is to have loopback alone.
pub fn is_loopback(arguments: &RunArguments) -> bool {
    arguments.net.split(',').all(choice::is_loopback)
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
    let mappings = ports::mappings(manifest, images)?;
    let attachments = choice::attachments(arguments, mappings)?;
    ensure!(
        manifest.ports.is_empty()
            || attachments
                .iter()
                .any(|one| one.network.offers(ports::CAPABILITY)),
        "--net={}: none of these networks forwards ports of the host (a plugin with the capability portMappings, as portmap, does)",
        arguments.net
    );
    ensure!(
        nix::unistd::geteuid().is_root(),
        "--net={}: networks of the host take root; without it pods have --net=none",
        arguments.net
    );
    ensure!(
        attachments.len() <= usize::from(NETWORK_CARDS),
        "--net={}: {} networks; a pod has at most {NETWORK_CARDS}",
        arguments.net,
        attachments.len()
    );
    let made = make(pod, &arguments.uuid, attachments);
    let mut made = made.inspect_err(|_| give_up(pod, &arguments.uuid))?;
    let mut modes = arguments
        .dns_conf_mode
        .iter()
        .flat_map(|mode| mode.split(','));
    made.resolv = made
        .resolv
        .filter(|_| !modes.any(|mode| mode == "resolv=none"));
    Ok(made)
}

/// Takes down the networks of a pod that does not come to be; what cannot be, `gc` will.
pub fn give_up(pod: &PodDir, uuid: &str) {
    if let Err(error) = tear_down(pod, uuid) {
        crate::tell(&format!("take the pod's networks down: {error:#}"));
    }
}

fn make(pod: &PodDir, uuid: &str, attachments: Vec<Attachment>) -> Result<Networks> {
    // What is to be taken down is written down before it is made.
    let mut records = Records::create(pod, attachments)?;
    let namespace = Namespace::create(uuid)?;
    let container = container(uuid, Some(namespace.path().to_owned()));
    records.update(|attachment| attachment.add(&container))?;
    let interfaces = records
        .attachments()
        .map(|attachment| &*attachment.interface);
    let interfaces: Vec<_> = interfaces.collect();
    let mut networks = namespace.inside(|| join(&interfaces))?;
    records.tell(&networks.cards)?;
    networks.resolv = ports::resolv(records.attachments());
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
        resolv: None,
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
    let Some(mut records) = Records::read(pod)? else {
        return Ok(());
    };
    let namespace = Namespace::find(uuid);
    let container = container(
        uuid,
        namespace.as_ref().map(|there| there.path().to_owned()),
    );
    records.delete(|attachment| attachment.delete(&container))?;
    namespace.map_or(Ok(()), Namespace::delete)?;
    records.forget()
}

fn container(uuid: &str, namespace: Option<PathBuf>) -> Container {
    Container {
        id: uuid.to_owned(),
        namespace,
        plugins: PLUGINS.map(|path| Path::new(path).to_owned()).into(),
    }
}
