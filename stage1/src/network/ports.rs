//! Which ports of the host lead to ports of apps.

use anyhow::{Context, Result};
use cni::Mapping;
use contract::PodManifest;
use contract::image::App;
use contract::pod::ExposedPort;

use crate::plan::{PreparedImage, program};

/// Every port that `pod` exposes, one mapping each.
///
/// # Errors
/// For one that no app has, and what is no address.
pub fn mappings(pod: &PodManifest, images: &[PreparedImage]) -> Result<Vec<Mapping>> {
    let apps = programs(pod, images)?;
    let mut mappings = Vec::new();
    for exposed in &pod.ports {
        let mut of_apps = apps.iter().flat_map(|app| &app.ports);
        let port = exposed.pod_port.as_ref();
        let port = port.or_else(|| of_apps.find(|port| port.name == exposed.name));
        let port = port.with_context(|| format!("no app has the port {:?}", exposed.name))?;
        mappings.extend(Mapping::each(exposed, port)?);
    }
    Ok(mappings)
}

/// The ports of the host that are those of `pod`'s apps, if it has the host's network, but for those that it exposes itself.
///
/// # Errors
/// For what is no port.
pub fn own(pod: &PodManifest, images: &[PreparedImage]) -> Result<Vec<Mapping>> {
    let mut mappings = Vec::new();
    for port in programs(pod, images)?.iter().flat_map(|app| &app.ports) {
        let exposed = ExposedPort {
            name: port.name.clone(),
            host_port: port.port,
            host_ip: None,
            pod_port: None,
        };
        if !pod.ports.iter().any(|other| other.name == port.name) {
            mappings.extend(Mapping::each(&exposed, port)?);
        }
    }
    Ok(mappings)
}

fn programs<'a>(pod: &'a PodManifest, images: &'a [PreparedImage]) -> Result<Vec<&'a App>> {
    let apps = pod.apps.iter().zip(images);
    apps.map(|(app, image)| program(app, image)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
            serde_json::to_value(mappings(&pod, &images)?)?,
            json!([
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
                {"hostPort": 8081, "containerPort": 81, "protocol": "tcp", "hostIP": "127.0.0.1"},
                {"hostPort": 53, "containerPort": 5353, "protocol": "udp"},
            ])
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
