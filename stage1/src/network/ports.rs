//! Ports of the host that lead to ports of apps, as the capability `portMappings` has them.

use anyhow::{Context, Result};
use contract::PodManifest;
use contract::image::Port;
use contract::pod::ExposedPort;
use serde_json::{Value, json};

use crate::plan::{PreparedImage, program};

/// What plugins have that take mappings.
pub const CAPABILITY: &str = "portMappings";

/// Every port that `pod` exposes, one mapping each.
///
/// # Errors
/// For one that no app has.
pub fn mappings(pod: &PodManifest, images: &[PreparedImage]) -> Result<Vec<Value>> {
    let apps = pod.apps.iter().zip(images);
    let apps = apps.map(|(app, image)| program(app, image));
    let apps = apps.collect::<Result<Vec<_>>>()?;
    let mut mappings = Vec::new();
    for exposed in &pod.ports {
        let mut of_apps = apps.iter().flat_map(|app| &app.ports);
        let port = exposed.pod_port.as_ref();
        let port = port.or_else(|| of_apps.find(|port| port.name == exposed.name));
        let port = port.with_context(|| format!("no app has the port {:?}", exposed.name))?;
        mappings.extend(each(exposed, port)?);
    }
    Ok(mappings)
}

/// A mapping for each port of a range.
fn each(exposed: &ExposedPort, port: &Port) -> Result<Vec<Value>> {
    let mapping = |offset: u16| {
        let [host, own] = [exposed.host_port, port.port].map(|first| first.checked_add(offset));
        let out_of_range = || format!("port {:?} goes on beyond 65535", exposed.name);
        let mut mapping = json!({
            "hostPort": host.with_context(out_of_range)?,
            "containerPort": own.with_context(out_of_range)?,
            "protocol": port.protocol,
        });
        if let Some(ip) = &exposed.host_ip {
            mapping["hostIP"] = json!(ip);
        }
        Ok(mapping)
    };
    (0..port.count.max(1)).map(mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_ports_are_those_of_apps_by_name_or_their_own() -> Result<()> {
        let pod: PodManifest = serde_json::from_value(json!({
            "acVersion": "0.8.11", "acKind": "PodManifest",
            "apps": [{"name": "web", "image": {"id": "sha512-00"}, "app": {
                "exec": ["/web"], "user": "0", "group": "0",
                "ports": [{"name": "http", "protocol": "tcp", "port": 80, "count": 2}],
            }}],
            "ports": [
                {"name": "http", "hostPort": 8080, "hostIP": "127.0.0.1"},
                {"name": "dns", "hostPort": 53, "podPort": {"name": "dns", "protocol": "udp", "port": 5353}},
            ],
        }))?;
        let image = PreparedImage {
            manifest: serde_json::from_value(json!({
                "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "web",
            }))?,
            root: crate::plan::PreparedRoot::Folder("/".into()),
        };
        let images = [image];
        assert_eq!(
            mappings(&pod, &images)?,
            [
                json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"}),
                json!({"hostPort": 8081, "containerPort": 81, "protocol": "tcp", "hostIP": "127.0.0.1"}),
                json!({"hostPort": 53, "containerPort": 5353, "protocol": "udp"}),
            ]
        );
        let mut beyond = pod.clone();
        beyond.ports[0].host_port = 65535;
        assert!(mappings(&beyond, &images).is_err());
        let mut nobody = pod;
        nobody.ports[0].name = "ssh".into();
        assert!(mappings(&nobody, &images).is_err());
        Ok(())
    }
}
