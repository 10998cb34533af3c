//! By what a host reaches everything.

use std::net::IpAddr;

use anyhow::Result;
use netlink::{Address, Netlink, Route};

/// The host's way out by one version of IP.
pub struct Uplink {
    /// The host's address there.
    pub address: Address,
    gateway: Option<IpAddr>,
    /// All ways by that interface from this address.
    pub routes: Vec<Route>,
}

impl Uplink {
    /// Those of `host`, at most one for each version.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn find_all(host: &Netlink) -> Result<Vec<Self>> {
        let routes = host.routes()?;
        let mut uplinks = Vec::new();
        for is_v4 in [true, false] {
            let of_version: Vec<_> = routes
                .iter()
                .filter(|(_, route)| route.to.ip.is_ipv4() == is_v4)
                .collect();
            let out = of_version.iter().filter(|(_, route)| route.to.prefix == 0);
            // As Linux takes it.
            let out = out.min_by_key(|(_, route)| route.priority.unwrap_or(0));
            if let Some((interface, out)) = out {
                let addresses = host.addresses(*interface)?;
                uplinks.extend(Self::new(*interface, out, &of_version, &addresses));
            }
        }
        Ok(uplinks)
    }

    fn new(
        interface: u32,
        out: &Route,
        routes: &[&(u32, Route)],
        addresses: &[Address],
    ) -> Option<Self> {
        let mut addresses = addresses.iter();
        let address = addresses.find(|address| address.ip.is_ipv4() == out.to.ip.is_ipv4())?;
        let is_own = |route: &Route| route.source.is_none_or(|source| source == address.ip);
        // For others passt answers only where it has that version.
        let is_of_version = |gateway: &IpAddr| gateway.is_ipv4() == address.ip.is_ipv4();
        let by_it = routes
            .iter()
            .filter(|(by, route)| *by == interface && is_own(route));
        Some(Self {
            address: *address,
            gateway: out.gateway.filter(is_of_version),
            routes: by_it
                .map(|(_, route)| Route {
                    gateway: route.gateway.filter(is_of_version),
                    ..route.clone()
                })
                .collect(),
        })
    }

    /// What passt is told of it.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec!["--address".into(), self.address.ip.to_string()];
        if self.address.ip.is_ipv4() {
            flags.extend(["--netmask".into(), self.address.prefix.to_string()]);
        }
        if let Some(gateway) = self.gateway {
            flags.extend(["--gateway".into(), gateway.to_string()]);
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn way_out_has_the_routes_of_its_interface_and_address_alone() -> Result<()> {
        let address = |text: &str, prefix| -> Result<Address> {
            Ok(Address {
                ip: text.parse()?,
                prefix,
            })
        };
        let route =
            |to: &str, prefix, gateway: Option<&str>, source: Option<&str>| -> Result<Route> {
                Ok(Route {
                    gateway: gateway.map(str::parse).transpose()?,
                    source: source.map(str::parse).transpose()?,
                    ..Route::on_link(address(to, prefix)?)
                })
            };
        let routes = [
            (2, route("192.0.2.0", 24, None, Some("192.0.2.7"))?),
            (2, route("198.51.100.0", 24, None, Some("198.51.100.7"))?),
            (3, route("203.0.113.0", 24, None, None)?),
            (2, route("0.0.0.0", 0, Some("192.0.2.1"), None)?),
            (2, route("198.18.0.0", 15, Some("fe80::1"), None)?),
        ];
        let addresses = [
            address("2001:db8::7", 64)?,
            address("192.0.2.7", 24)?,
            address("198.51.100.7", 24)?,
        ];
        let all: Vec<_> = routes.iter().collect();
        let uplink = Uplink::new(2, &routes[3].1, &all, &addresses);
        let uplink = uplink.expect("it has an address");
        // passt answers for everybody that is asked for.
        let without_gateway = Route::on_link(address("198.18.0.0", 15)?);
        let expected = [routes[0].1.clone(), routes[3].1.clone(), without_gateway];
        assert_eq!(uplink.routes, expected);
        let flags = uplink.flags().join(" ");
        assert_eq!(
            flags,
            "--address 192.0.2.7 --netmask 24 --gateway 192.0.2.1"
        );
        assert!(Uplink::new(2, &routes[3].1, &all, &addresses[..1]).is_none());
        Ok(())
    }
}
