//! What an administrator asks of the networks that pods are on: whether a pod's are as they were made, and to take away what
//! belongs to no pod. What was made is read as crate `cni` writes it down, which stage1-kvm does.

use anyhow::{Context, Result};
use cni::{Attachment, Container, Network, Records};
use netlink::Namespace;

use crate::pods::{Pod, Pods};
use crate::settings::Settings;

/// Has the plugins of `pod`'s networks check what they have made for it.
///
/// # Errors
/// What the first one to fail says.
pub fn check(pod: &Pod) -> Result<()> {
    let namespace = Namespace::find(&contract::network_namespace(pod.uuid()));
    let path = namespace.as_ref().and_then(Namespace::path);
    let container = Container::new(pod.uuid(), path);
    let records = Records::read(&pod.dir().networks())?;
    let mut attachments = records.iter().flat_map(Records::attachments);
    attachments.try_for_each(|attachment| attachment.check(&container))
}

/// Has the plugins of the networks that the local configuration describes delete what belongs to none of `pods`; what is wrong with
/// some of them.
///
/// # Errors
/// When it is not known what the pods have.
pub fn collect(pods: &Pods, settings: &Settings) -> Result<Vec<anyhow::Error>> {
    let folder = settings.local_config.join("net.d");
    let (networks, mut faults) = Network::find_all(&[folder])?;
    let records = pods.all()?.into_iter().map(|pod| {
        let records = Records::read(&pod.dir().networks());
        let records =
            records.with_context(|| format!("read the networks of pod {}", pod.uuid()))?;
        Ok((pod.uuid().to_owned(), records))
    });
    let records = records.collect::<Result<Vec<_>>>()?;
    for network in networks {
        let of_pod = |(uuid, records): &'_ (String, Option<Records>)| -> Vec<_> {
            let attachments = records.iter().flat_map(Records::attachments);
            let valid = attachments.filter(|attachment| attachment.network.name == network.name);
            let interface = |one: &Attachment| (uuid.clone(), one.interface.clone());
            valid.map(interface).collect()
        };
        let valid: Vec<_> = records.iter().flat_map(of_pod).collect();
        match network.collect(cni::plugin_folders(), &valid) {
            Ok(true) => crate::note(&format!(
                "network {}: plugins have deleted what belongs to none of {} interfaces",
                network.name,
                valid.len()
            )),
            Ok(false) => crate::note(&format!(
                "network {}: its plugins are not asked, for they do not speak version 1.1.0 or disableGC forbids it",
                network.name
            )),
            Err(fault) => faults.push(fault),
        }
    }
    Ok(faults)
}
