//! Interfaces, their addresses, neighbours and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use netlink_packet_core::{DefaultNla, Emitable, NlasIterator, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeader, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use netlink_packet_route::neighbour::{NeighbourHeader, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};

use crate::socket::{APPEND, Body, CREATE};
use crate::{Address, Interface, Neighbour, Netlink, Route};

/// Of a route's metrics, the largest packet.
const RTAX_MTU: u16 = 2;
/// And TCP's window.
const RTAX_WINDOW: u16 = 3;

impl Netlink {
    /// The interface called `name`.
    ///
    /// # Errors
    /// When there is none, or it is no Ethernet.
    pub fn interface(&self, name: &str) -> Result<Interface> {
        let named = DefaultNla::new(libc::IFLA_IFNAME, [name.as_bytes(), &[0]].concat());
        let request = Body::with(libc::RTM_GETLINK, &LinkHeader::default(), &[named]);
        let answer = self.get(request);
        let answer = answer.with_context(|| format!("look for interface {name}"))?;
        let header = LinkHeader::parse(&answer.bytes)?;
        let (mut mac, mut mtu) = (None, None);
        let attributes = answer.bytes.get(header.buffer_len()..).unwrap_or_default();
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            match attribute.kind() {
                libc::IFLA_ADDRESS => mac = attribute.value().try_into().ok(),
                libc::IFLA_MTU => mtu = attribute.value().try_into().ok(),
                _ => {}
            }
        }
        Ok(Interface {
            index: header.index,
            mac: mac.with_context(|| format!("interface {name} is no Ethernet"))?,
            mtu: u32::from_ne_bytes(mtu.context("an interface without an MTU")?),
        })
    }

    /// Has an interface keep at most so many packets for who is to take them.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn set_queue_length(&self, index: u32, packets: u32) -> Result<()> {
        let request = LinkHeader {
            index,
            ..LinkHeader::default()
        };
        let length = of_number(libc::IFLA_TXQLEN, packets);
        self.change(Body::with(libc::RTM_SETLINK, &request, &[length]), 0)
            .with_context(|| format!("bound the queue of interface {index}"))
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn set_up(&self, index: u32) -> Result<()> {
        let request = LinkHeader {
            index,
            flags: LinkFlags::Up,
            change_mask: LinkFlags::Up,
            ..LinkHeader::default()
        };
        self.change(Body::new(libc::RTM_SETLINK, &request), 0)
            .with_context(|| format!("bring interface {index} up"))
    }

    /// The addresses of an interface, but for those that a link gives itself.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let request = Body::new(libc::RTM_GETADDR, &AddressMessage::default());
        let answers = self.list(request).context("list addresses")?;
        let mut addresses = Vec::new();
        for answer in answers {
            let found = AddressMessage::parse(&answer.bytes)?;
            addresses.extend(of_interface(&found, index));
        }
        Ok(addresses)
    }

    /// Gives an interface an address, without a route to its network, and without asking whether others have it.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn add_address(&self, index: u32, address: Address) -> Result<()> {
        let header = AddressHeader {
            family: family(address.ip),
            prefix_len: address.prefix,
            index,
            ..AddressHeader::default()
        };
        let flags = libc::IFA_F_NOPREFIXROUTE | libc::IFA_F_NODAD;
        let request = Body::with(
            libc::RTM_NEWADDR,
            &header,
            &[
                of_ip(libc::IFA_LOCAL, address.ip),
                of_ip(libc::IFA_ADDRESS, address.ip),
                of_number(libc::IFA_FLAGS, flags),
            ],
        );
        let (ip, prefix) = (address.ip, address.prefix);
        self.change(request, CREATE)
            .with_context(|| format!("give interface {index} the address {ip}/{prefix}"))
    }

    /// The neighbours of an interface that somebody has told of.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn neighbours(&self, index: u32) -> Result<Vec<Neighbour>> {
        let request = Body::new(libc::RTM_GETNEIGH, &NeighbourHeader::default());
        let mut neighbours = Vec::new();
        for answer in self.list(request).context("list neighbours")? {
            let header = NeighbourHeader::parse(&answer.bytes)?;
            if (header.ifindex, header.state) != (index, NeighbourState::Permanent) {
                continue;
            }
            let (mut ip, mut mac) = (None, None);
            let attributes = answer.bytes.get(header.buffer_len()..).unwrap_or_default();
            for attribute in NlasIterator::new(attributes) {
                let attribute = attribute?;
                let value = attribute.value();
                match attribute.kind() {
                    libc::NDA_DST => ip = ip_of(value),
                    libc::NDA_LLADDR => mac = value.try_into().ok(),
                    _ => {}
                }
            }
            neighbours.extend(ip.zip(mac).map(|(ip, mac)| Neighbour { ip, mac }));
        }
        Ok(neighbours)
    }

    /// Tells an interface of a neighbour.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn add_neighbour(&self, index: u32, Neighbour { ip, mac }: Neighbour) -> Result<()> {
        let header = NeighbourHeader {
            family: family(ip),
            ifindex: index,
            state: NeighbourState::Permanent,
            ..NeighbourHeader::default()
        };
        let mac = DefaultNla::new(libc::NDA_LLADDR, mac.to_vec());
        let attributes = [of_ip(libc::NDA_DST, ip), mac];
        let request = Body::with(libc::RTM_NEWNEIGH, &header, &attributes);
        self.change(request, CREATE)
            .with_context(|| format!("tell interface {index} of its neighbour {ip}"))
    }

    /// The routes of the main table that lead by one interface, and by which. Of those to the same place the first counts; those
    /// behind a gateway come last.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn routes(&self) -> Result<Vec<(u32, Route)>> {
        let mut routes = Vec::new();
        for any in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
            let mut request = RouteMessage::default();
            request.header.address_family = family(any);
            let request = Body::new(libc::RTM_GETROUTE, &request);
            for answer in self.list(request).context("list routes")? {
                let found = RouteMessage::parse(&answer.bytes)?;
                routes.extend(of_main_table(&found, any));
            }
        }
        routes.sort_by_key(|(_, route)| route.gateway.is_some());
        Ok(routes)
    }

    /// Adds a route by an interface, after those to the same place.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn add_route(&self, index: u32, route: &Route) -> Result<()> {
        let header = RouteHeader {
            address_family: family(route.to.ip),
            destination_prefix_length: route.to.prefix,
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Static,
            kind: RouteType::Unicast,
            scope: match route.gateway {
                None if route.to.ip.is_ipv4() => RouteScope::Link,
                _ => RouteScope::Universe,
            },
            flags: match route.gateway_on_link {
                true => RouteFlags::Onlink,
                false => RouteFlags::empty(),
            },
            ..RouteHeader::default()
        };
        let to = (route.to.prefix > 0).then(|| of_ip(libc::RTA_DST, route.to.ip));
        let gateway = route
            .gateway
            .map(|ip| match family(ip) == family(route.to.ip) {
                true => of_ip(libc::RTA_GATEWAY, ip),
                false => of_via(ip),
            });
        let source = route.source.map(|ip| of_ip(libc::RTA_PREFSRC, ip));
        let priority = route
            .priority
            .map(|value| of_number(libc::RTA_PRIORITY, value));
        let metrics = [(RTAX_MTU, route.mtu), (RTAX_WINDOW, route.window)]
            .into_iter()
            .filter_map(|(kind, value)| Some(of_number(kind, value?)));
        let metrics: Vec<_> = metrics.collect();
        let metrics = (!metrics.is_empty())
            .then(|| DefaultNla::new(libc::RTA_METRICS, Body::new(0, &&*metrics).bytes));
        let by = Some(of_number(libc::RTA_OIF, index));
        let attributes = [to, gateway, source, priority, metrics, by];
        let attributes = attributes.into_iter().flatten();
        let request = Body::with(libc::RTM_NEWROUTE, &header, &attributes.collect::<Vec<_>>());
        self.change(request, APPEND)
            .with_context(|| format!("add a route to {}/{}", route.to.ip, route.to.prefix))
    }
}

fn of_ip(kind: u16, ip: IpAddr) -> DefaultNla {
    DefaultNla::new(kind, octets(ip))
}

/// A gateway of another version of IP.
fn of_via(ip: IpAddr) -> DefaultNla {
    let family = u16::from(u8::from(family(ip)));
    let via = [family.to_ne_bytes().to_vec(), octets(ip)].concat();
    DefaultNla::new(libc::RTA_VIA, via)
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn ip_of(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}

fn of_number(kind: u16, number: u32) -> DefaultNla {
    DefaultNla::new(kind, number.to_ne_bytes().to_vec())
}

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn of_interface(found: &AddressMessage, index: u32) -> Option<Address> {
    if found.header.index != index || found.header.scope == AddressScope::Link {
        return None;
    }
    let (mut local, mut address) = (None, None);
    for attribute in &found.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            // Where an interface has a peer, this is the peer's.
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    Some(Address {
        ip: local.or(address)?,
        prefix: found.header.prefix_len,
    })
}

fn of_main_table(found: &RouteMessage, any: IpAddr) -> Option<(u32, Route)> {
    let header = &found.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route::on_link(Address {
        ip: any,
        prefix: header.destination_prefix_length,
    });
    route.gateway_on_link = header.flags.contains(RouteFlags::Onlink);
    let mut by = None;
    for attribute in &found.attributes {
        match attribute {
            RouteAttribute::Oif(index) => by = Some(*index),
            RouteAttribute::Destination(to) => route.to.ip = ip(to)?,
            RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => {
                route.gateway = Some((*gateway).into());
            }
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
                        RouteMetric::Window(window) => route.window = Some(*window),
                        _ => {}
                    }
                }
            }
            RouteAttribute::PrefSource(source) => route.source = ip(source),
            RouteAttribute::Priority(priority) => route.priority = Some(*priority),
            _ => {}
        }
    }
    // The guest's kernel makes those of its own links itself.
    let is_own =
        matches!(route.to.ip, IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast());
    Some((by?, route)).filter(|_| !is_own)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
