//! Firewalls: nftables as `nft` loads it, the matches that iptables-nft needs, and the old iptables interface.

use anyhow::{Context, Result, ensure};
use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::containers::in_user_namespace_with;
use crate::netlink::{Netlink, attribute, bare, create, get, nested, text};
use crate::raw;

pub const FEATURES: &[crate::Feature] = &[
    ("nftables", nftables),
    ("iptables_on_nftables", iptables_on_nftables),
    ("iptables_legacy", iptables_legacy),
];

const NFPROTO_IPV4: u8 = 2;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_SUBSYS_NFT_COMPAT: u16 = 11;

/// One batch, as `nft` sends it: a table, a nat chain at postrouting, and a rule that masquerades.
fn nftables() -> Result<()> {
    const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
    const NFNL_MSG_BATCH_END: u16 = 0x11;
    in_user_namespace_with(CloneFlags::CLONE_NEWNET)?;
    let [_, high] = NFNL_SUBSYS_NFTABLES.to_ne_bytes();
    let subsystem = [0, 0, high, NFNL_SUBSYS_NFTABLES.to_be_bytes()[1]];
    Netlink::open(SockProtocol::NetlinkNetFilter)?.request(&[
        bare(NFNL_MSG_BATCH_BEGIN, &subsystem, &[]),
        nft(0, &[text(1, "test")]),
        nft(3, &nat_chain()),
        nft(6, &masquerading_rule()),
        bare(NFNL_MSG_BATCH_END, &subsystem, &[]),
    ])
}

fn nat_chain() -> [Vec<u8>; 4] {
    const NF_INET_POST_ROUTING: u32 = 4;
    const SOURCE_NAT_PRIORITY: u32 = 100;
    let hook = [
        attribute(1, &NF_INET_POST_ROUTING.to_be_bytes()),
        attribute(2, &SOURCE_NAT_PRIORITY.to_be_bytes()),
    ];
    [
        text(1, "test"),
        text(3, "chain"),
        nested(4, &hook),
        text(7, "nat"),
    ]
}

fn masquerading_rule() -> [Vec<u8>; 3] {
    let expression = nested(1, &[text(1, "masq")]);
    [text(1, "test"), text(2, "chain"), nested(4, &[expression])]
}

fn nft(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    create(
        NFNL_SUBSYS_NFTABLES << 8 | kind,
        &[NFPROTO_IPV4, 0, 0, 0],
        attributes,
    )
}

/// Asks, as iptables-nft does, whether the matches and targets of container engines' rules are there.
fn iptables_on_nftables() -> Result<()> {
    const MATCH: u32 = 0;
    const TARGET: u32 = 1;
    in_user_namespace_with(CloneFlags::CLONE_NEWNET)?;
    let netlink = Netlink::open(SockProtocol::NetlinkNetFilter)?;
    let asked: [(&str, u32, u32); 10] = [
        ("addrtype", 1, MATCH),
        ("comment", 0, MATCH),
        ("conntrack", 3, MATCH),
        ("limit", 0, MATCH),
        ("mark", 1, MATCH),
        ("multiport", 1, MATCH),
        ("owner", 1, MATCH),
        ("statistic", 0, MATCH),
        ("MASQUERADE", 0, TARGET),
        ("DNAT", 2, TARGET),
    ];
    for (name, revision, kind) in asked {
        let attributes = [
            text(1, name),
            attribute(2, &revision.to_be_bytes()),
            attribute(3, &kind.to_be_bytes()),
        ];
        let question = get(
            NFNL_SUBSYS_NFT_COMPAT << 8,
            &[NFPROTO_IPV4, 0, 0, 0],
            &attributes,
        );
        netlink.request(&[question]).context(name)?;
    }
    Ok(())
}

fn iptables_legacy() -> Result<()> {
    const IPT_SO_GET_INFO: i32 = 64;
    in_user_namespace_with(CloneFlags::CLONE_NEWNET)?;
    let raw_ip = SockProtocol::Raw;
    let socket = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::empty(),
        raw_ip,
    )
    .context("raw socket")?;
    for table in ["filter", "nat", "mangle"] {
        let mut info = [0; 84]; // struct ipt_getinfo: name of 32 bytes, hooks, offsets, entries, size
        info[..table.len()].copy_from_slice(table.as_bytes());
        raw::socket_option(&socket, libc::IPPROTO_IP, IPT_SO_GET_INFO, &mut info).context(table)?;
        ensure!(info[32..36] != [0; 4], "table {table} has no hooks");
    }
    Ok(())
}
