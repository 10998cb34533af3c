//! Two interfaces as one: what arrives at either leaves by the other.
//!
//! tc-u32(8), tc-mirred(8). By u32, with a selector that every packet meets: some kernels have no matchall.

use anyhow::{Context, Result};
use netlink_packet_route::tc::*;

use crate::Netlink;
use crate::socket::{Body, CREATE};

/// `ETH_P_ALL`.
const EVERY_PROTOCOL: u16 = 3;
/// Of the filter; there is no other.
const PRIORITY: u32 = 1;

impl Netlink {
    /// Joins two interfaces.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn join(&self, one: u32, other: u32) -> Result<()> {
        self.redirect(one, other)?;
        self.redirect(other, one)
    }

    fn redirect(&self, from: u32, to: u32) -> Result<()> {
        let context = || {
            format!(
                "redirect what arrives at interface {from} to {to} (by the kernel's sch_ingress, cls_u32 and act_mirred)"
            )
        };
        let mut qdisc = TcMessage::with_index(from.cast_signed());
        qdisc.header.parent = TcHandle::INGRESS;
        qdisc.header.handle = INGRESS;
        qdisc.attributes.push(TcAttribute::Kind("ingress".into()));
        self.change(Body::new(libc::RTM_NEWQDISC, &qdisc), CREATE)
            .with_context(context)?;

        let mut filter = TcMessage::with_index(from.cast_signed());
        filter.header.parent = INGRESS;
        filter.header.info = PRIORITY << 16 | u32::from(EVERY_PROTOCOL.to_be());
        let options = [
            TcFilterU32Option::Selector(every_packet()),
            TcFilterU32Option::Action(vec![redirection(to)]),
        ];
        filter.attributes = vec![
            TcAttribute::Kind(TcFilterU32::KIND.into()),
            TcAttribute::Options(options.map(TcOption::U32).into()),
        ];
        self.change(Body::new(libc::RTM_NEWTFILTER, &filter), CREATE)
            .with_context(context)
    }
}

/// The handle that an ingress qdisc has.
const INGRESS: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};

fn every_packet() -> TcU32Selector {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    // One key, whose mask has no bit.
    (selector.nkeys, selector.keys) = (1, vec![TcU32Key::default()]);
    selector
}

fn redirection(to: u32) -> TcAction {
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let options = TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror));
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.into()),
        TcActionAttribute::Options(vec![options]),
    ];
    action
}
