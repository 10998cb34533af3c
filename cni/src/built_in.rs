//! Networks that need no file, which are rkt's: `default`, by which pods reach what the host does, and `default-restricted`, by
//! which they reach the host.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::ports::PORT_MAPPINGS;
use crate::{Network, name_servers};

/// What a pod is on that asks for nothing else.
pub const DEFAULT: &str = "default";

/// Who has which address. Emptied when the host is restarted, which takes all pods along.
const LEASES: &str = "/run/fairing/networks";

/// The networks; with `ports` they lead ports of the host to pods.
///
/// # Errors
/// None that a host could cause.
pub fn built_in(ports: bool) -> Result<Vec<Network>> {
    let portmap = json!({"type": "portmap", "capabilities": {PORT_MAPPINGS: true}});
    let network = |name: &str, subnet: &str, routes: Value, more: Vec<Value>| {
        let ipam =
            json!({"type": "host-local", "dataDir": LEASES, "subnet": subnet, "routes": routes});
        let masquerades = !more.is_empty();
        let mut ptp = json!({"type": "ptp", "ipMasq": masquerades, "ipam": ipam});
        if masquerades {
            ptp["dns"] = name_servers();
        }
        let mut plugins = [vec![ptp], more].concat();
        plugins.extend(ports.then(|| portmap.clone()));
        let network = json!({"cniVersion": "0.4.0", "name": name, "plugins": plugins});
        Network::parse(&serde_json::to_vec(&network)?)
    };
    let everywhere = json!([{"dst": "0.0.0.0/0"}]);
    // A host that forwards nothing else forwards what this allows.
    let firewall = vec![json!({"type": "firewall"})];
    let networks = [
        network(DEFAULT, "172.16.28.0/24", everywhere, firewall),
        network("default-restricted", "172.31.0.0/16", json!([]), vec![]),
    ];
    networks
        .into_iter()
        .collect::<Result<_>>()
        .context("built-in networks")
}
