//! Ports of the host that lead to ports of a container, as the capability `portMappings` has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use contract::image::Port;
use contract::pod::ExposedPort;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use serde::Serialize;
use serde_json::json;

use crate::Attachment;

/// What plugins have that take mappings.
pub(crate) const PORT_MAPPINGS: &str = "portMappings";

/// A port of the host that leads to one of the pod, as plugins are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mapping {
    /// The host's.
    pub host_port: u16,
    /// The pod's.
    pub container_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where the host has it; `None` = at every address.
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

impl Mapping {
    /// A mapping for each of the range `port`, which is `exposed`.
    ///
    /// # Errors
    /// For what is no address, and no port.
    pub fn each(exposed: &ExposedPort, port: &Port) -> Result<Vec<Self>> {
        let host_ip = exposed.host_ip.as_ref().map(|text| {
            let ip: Result<IpAddr, _> = text.parse();
            ip.with_context(|| format!("port {:?}: address {text:?}", exposed.name))
        });
        let host_ip = host_ip.transpose()?;
        let mapping = |offset: u16| {
            let [host, own] = [exposed.host_port, port.port].map(|first| first.checked_add(offset));
            let out_of_range = || format!("port {:?} goes on beyond 65535", exposed.name);
            Ok(Self {
                host_port: host.with_context(out_of_range)?,
                container_port: own.with_context(out_of_range)?,
                protocol: port.protocol.clone(),
                host_ip,
            })
        };
        (0..port.count.max(1)).map(mapping).collect()
    }
}

/// Has the ports of the host that `mappings` name lead to the container by the first interface whose plugins can: each leads to one
/// place.
///
/// # Errors
/// When none can.
pub fn lead(attachments: &mut [Attachment], mappings: &[Mapping]) -> Result<()> {
    if mappings.is_empty() {
        return Ok(());
    }
    let mut offering = attachments.iter_mut();
    let first = offering.find(|one| one.network.offers(PORT_MAPPINGS));
    let first = first
        .context("no plugin of these networks has the capability portMappings, as portmap has")?;
    let capabilities = &mut first.capabilities;
    capabilities.insert(PORT_MAPPINGS.into(), json!(mappings));
    Ok(())
}

/// Takes the ports of the host, so that neither a program nor another pod has them as long as the sockets are there. Nobody listens
/// at them: what arrives is led on before.
///
/// # Errors
/// When one is taken.
pub fn reserve(mappings: &[Mapping]) -> Result<Vec<OwnedFd>> {
    sockets(mappings, false)
}

/// Looks whether who listens could have these ports of the host: connections of the past may have them still.
///
/// # Errors
/// When one is taken, or not for the caller.
pub fn look_free(mappings: &[Mapping]) -> Result<()> {
    sockets(mappings, true).map(drop)
}

fn sockets(mappings: &[Mapping], reuses: bool) -> Result<Vec<OwnedFd>> {
    let every = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let mut sockets = Vec::new();
    for mapping in mappings {
        let ips = mapping.host_ip.map_or(every.to_vec(), |ip| vec![ip]);
        for ip in ips {
            let address = SocketAddr::new(ip, mapping.host_port);
            match take(address, &mapping.protocol, reuses) {
                // A host without IPv6.
                Err(Errno::AFNOSUPPORT) if mapping.host_ip.is_none() => {}
                taken => sockets.push(taken.with_context(|| {
                    format!("take port {address}/{} of the host", mapping.protocol)
                })?),
            }
        }
    }
    Ok(sockets)
}

fn take(address: SocketAddr, protocol: &str, reuses: bool) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match protocol {
        "udp" => SocketType::DGRAM,
        _ => SocketType::STREAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if reuses && kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_of_the_host_is_taken_once_as_long_as_its_socket_is_there() -> Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let mapping = |host_ip: Option<&str>, protocol: &str| -> Result<Mapping> {
            Ok(Mapping {
                host_port: listener.local_addr()?.port(),
                container_port: 80,
                protocol: protocol.into(),
                host_ip: host_ip.map(str::parse).transpose()?,
            })
        };
        for host_ip in [Some("127.0.0.1"), None] {
            let error = reserve(&[mapping(host_ip, "tcp")?])
                .err()
                .context("it is taken")?;
            assert!(
                format!("{error:#}").contains("/tcp of the host: Address already in use"),
                "{error:#}"
            );
            assert!(look_free(&[mapping(host_ip, "tcp")?]).is_err());
        }
        let other = [
            mapping(Some("127.0.0.2"), "tcp")?,
            mapping(Some("127.0.0.1"), "udp")?,
        ];
        let sockets = reserve(&other)?;
        assert!(reserve(&other[..1]).is_err());
        assert!(look_free(&other[..1]).is_err());
        drop(sockets);
        reserve(&other)?;
        // Who has closed a connection has its port for a while longer.
        let server = std::net::TcpListener::bind("127.0.0.1:0")?;
        let client = std::net::TcpStream::connect(server.local_addr()?)?;
        let mut past = mapping(Some("127.0.0.1"), "tcp")?;
        past.host_port = server.local_addr()?.port();
        let past = [past];
        drop(server.accept()?);
        drop((server, client));
        assert!(reserve(&past).is_err());
        look_free(&past)
    }
}
