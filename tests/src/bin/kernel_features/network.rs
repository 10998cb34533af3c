//! Networks: address families, and the devices from which container engines and VPNs build theirs.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::containers::in_user_namespace_with;
use crate::netlink::{Netlink, attribute, create, list, nested, text};
use crate::raw;

pub const FEATURES: &[crate::Feature] = &[
    ("ipv4", ipv4),
    ("ipv6", ipv6),
    ("vsock", vsock),
    ("packet_socket", packet_socket),
    ("socket_figures", socket_figures),
    ("tun", tun),
    ("veth_and_bridge", veth_and_bridge),
    ("vlan_macvlan_ipvlan", devices_on_a_link),
    ("vxlan", vxlan),
    ("policy_routing", policy_routing),
    ("traffic_control", traffic_control),
];

const RTM_NEWLINK: u16 = 16;
const RTM_NEWRULE: u16 = 32;
const RTM_NEWQDISC: u16 = 36;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const LOOPBACK: u32 = 1;

/// Enters a network of its own, in a user namespace, and opens the socket that configures it.
fn in_network_namespace() -> Result<Netlink> {
    in_user_namespace_with(CloneFlags::CLONE_NEWNET)?;
    Netlink::open(SockProtocol::NetlinkRoute)
}

fn ipv4() -> Result<()> {
    over_loopback("127.0.0.1:0")
}

fn ipv6() -> Result<()> {
    over_loopback("[::1]:0")
}

fn over_loopback(address: &str) -> Result<()> {
    in_network_namespace()?
        .request(&[create(RTM_NEWLINK, &link_header(LOOPBACK), &[])])
        .context("loopback up")?;
    let listener = TcpListener::bind(address).context("bind")?;
    let mut client = TcpStream::connect(listener.local_addr()?).context("connect")?;
    client.write_all(b"text")?;
    let mut received = [0; 4];
    listener.accept()?.0.read_exact(&mut received)?;
    ensure!(&received == b"text", "other bytes came out");
    Ok(())
}

fn vsock() -> Result<()> {
    socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .context("socket")
    .map(drop)
}

fn packet_socket() -> Result<()> {
    in_user_namespace_with(CloneFlags::CLONE_NEWNET)?;
    socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::empty(),
        None,
    )
    .context("socket")
    .map(drop)
}

/// What `ss` asks: all TCP sockets over IPv4.
fn socket_figures() -> Result<()> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const AF_INET: u8 = 2;
    const IPPROTO_TCP: u8 = 6;
    let mut request = vec![AF_INET, IPPROTO_TCP, 0, 0, 0xff, 0xff, 0xff, 0xff];
    request.resize(56, 0); // struct inet_diag_req_v2: no particular socket
    let sockets = list(SOCK_DIAG_BY_FAMILY, &request, &[]);
    Netlink::open(SockProtocol::NetlinkSockDiag)?.request(&[sockets])
}

fn tun() -> Result<()> {
    const TUNSETIFF: u64 = 0x4004_54ca;
    const IFF_TAP_NO_PI: u16 = 0x1002;
    in_user_namespace_with(CloneFlags::CLONE_NEWNET)?;
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .context("open /dev/net/tun")?;
    let mut request = [0; 40]; // struct ifreq: name, flags
    request[..4].copy_from_slice(b"tap0");
    request[16..18].copy_from_slice(&IFF_TAP_NO_PI.to_ne_bytes());
    raw::ioctl(&device, TUNSETIFF, &mut request)
        .context("TUNSETIFF")
        .map(drop)
}

fn veth_and_bridge() -> Result<()> {
    let netlink = in_network_namespace()?;
    netlink
        .request(&[link(10, "bridge0", "bridge", &[])])
        .context("bridge")?;
    let veth = create(
        RTM_NEWLINK,
        &link_header(11),
        &[
            text(IFLA_IFNAME, "port0"),
            attribute(IFLA_MASTER, &10u32.to_ne_bytes()),
            nested(IFLA_LINKINFO, &[text(IFLA_INFO_KIND, "veth")]),
        ],
    );
    netlink.request(&[veth]).context("veth in the bridge")
}

fn devices_on_a_link() -> Result<()> {
    const IFLA_VLAN_ID: u16 = 1;
    let netlink = in_network_namespace()?;
    netlink
        .request(&[link(10, "link0", "veth", &[])])
        .context("veth")?;
    netlink
        .request(&[link(30, "link1", "veth", &[])])
        .context("second veth")?;
    netlink
        .request(&[on_link(
            10,
            20,
            "vlan",
            &[attribute(IFLA_VLAN_ID, &7u16.to_ne_bytes())],
        )])
        .context("vlan")?;
    netlink
        .request(&[on_link(10, 21, "macvlan", &[])])
        .context("macvlan")?;
    netlink
        .request(&[on_link(30, 22, "ipvlan", &[])])
        .context("ipvlan")
}

fn vxlan() -> Result<()> {
    const IFLA_VXLAN_ID: u16 = 1;
    let id = attribute(IFLA_VXLAN_ID, &42u32.to_ne_bytes());
    in_network_namespace()?.request(&[link(10, "vxlan0", "vxlan", &[id])])
}

fn policy_routing() -> Result<()> {
    const FR_ACT_TO_TBL: u8 = 1;
    const TABLE: u8 = 100;
    let netlink = in_network_namespace()?;
    for family in [2, 10] {
        let rule = [family, 0, 0, 0, TABLE, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
        netlink
            .request(&[create(RTM_NEWRULE, &rule, &[])])
            .with_context(|| format!("family {family}"))?;
    }
    Ok(())
}

fn traffic_control() -> Result<()> {
    const TCA_KIND: u16 = 1;
    const TC_H_ROOT: u32 = 0xffff_ffff;
    const TC_H_INGRESS: u32 = 0xffff_fff1;
    let netlink = in_network_namespace()?;
    netlink
        .request(&[link(10, "link0", "veth", &[])])
        .context("veth")?;
    for (kind, handle, parent) in [
        ("fq_codel", 0, TC_H_ROOT),
        ("ingress", 0xffff_0000, TC_H_INGRESS),
    ] {
        let header = [0, 10, handle, parent, 0].map(u32::to_ne_bytes).concat(); // struct tcmsg
        netlink
            .request(&[create(RTM_NEWQDISC, &header, &[text(TCA_KIND, kind)])])
            .context(kind)?;
    }
    Ok(())
}

fn link(index: u32, name: &str, kind: &str, settings: &[Vec<u8>]) -> Vec<u8> {
    create(
        RTM_NEWLINK,
        &link_header(index),
        &[text(IFLA_IFNAME, name), link_info(kind, settings)],
    )
}

fn on_link(parent: u32, index: u32, kind: &str, settings: &[Vec<u8>]) -> Vec<u8> {
    let parent = attribute(IFLA_LINK, &parent.to_ne_bytes());
    create(
        RTM_NEWLINK,
        &link_header(index),
        &[text(IFLA_IFNAME, kind), parent, link_info(kind, settings)],
    )
}

fn link_info(kind: &str, settings: &[Vec<u8>]) -> Vec<u8> {
    nested(
        IFLA_LINKINFO,
        &[text(IFLA_INFO_KIND, kind), nested(IFLA_INFO_DATA, settings)],
    )
}

/// struct ifinfomsg: any family and type, this index, to be brought up.
fn link_header(index: u32) -> Vec<u8> {
    const IFF_UP: u32 = 1;
    [0, index, IFF_UP, IFF_UP].map(u32::to_ne_bytes).concat()
}
