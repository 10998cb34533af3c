//! What is written down of a pod's networks, in its directory: one file for each interface, from before its plugins are
//! executed until they have deleted it, and rkt's `net-info.json`.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cni::Attachment;
use contract::{PodDir, bounded};
use serde::Serialize;
use serde_json::json;
use vmm::layout::NETWORK_CARDS;

use super::Card;

/// The largest file of these, bytes.
const LIMIT_BYTES: u64 = 4 << 20;

/// The interfaces of a pod, in order.
pub struct Records {
    pod: PodDir,
    /// Each with the number that its file has.
    attachments: Vec<(u8, Attachment)>,
}

impl Records {
    /// Writes down what is going to be made.
    pub fn create(pod: &PodDir, attachments: Vec<Attachment>) -> Result<Self> {
        let folder = pod.networks();
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let mut records = Self {
            pod: pod.clone(),
            attachments: (0..).zip(attachments).collect(),
        };
        records.update(|_| Ok(()))?;
        Ok(records)
    }

    /// What has been written down; `None` = the pod has no networks.
    pub fn read(pod: &PodDir) -> Result<Option<Self>> {
        if !pod.networks().exists() {
            return Ok(None);
        }
        let mut attachments = Vec::new();
        for number in 0..NETWORK_CARDS {
            let path = path(pod, number);
            let file = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file.map_err(Into::into),
            };
            let json = file.and_then(|file| bounded::read(file, LIMIT_BYTES));
            let attachment = json.and_then(|json| Ok(serde_json::from_slice(&json)?));
            let attachment = attachment.with_context(|| format!("read {}", path.display()))?;
            attachments.push((number, attachment));
        }
        let pod = pod.clone();
        Ok(Some(Self { pod, attachments }))
    }

    /// The interfaces, in order.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.iter().map(|(_, attachment)| attachment)
    }

    /// Has `change` change each, in order, and writes down what has become of it.
    pub fn update(&mut self, change: impl Fn(&mut Attachment) -> Result<()>) -> Result<()> {
        for (number, attachment) in &mut self.attachments {
            let changed = change(attachment);
            replace(&path(&self.pod, *number), attachment)?;
            changed?;
        }
        Ok(())
    }

    /// Has `delete` delete each, the last one first, and forgets those that it has; the first error of those that it has not.
    pub fn delete(&mut self, delete: impl Fn(&Attachment) -> Result<()>) -> Result<()> {
        let mut deleted = Ok(());
        for (number, attachment) in self.attachments.iter().rev() {
            let path = path(&self.pod, *number);
            let forget =
                || fs::remove_file(&path).with_context(|| format!("delete {}", path.display()));
            deleted = deleted.and(delete(attachment).and_then(|()| forget()));
        }
        deleted
    }

    /// There is nothing left to be taken down.
    pub fn forget(self) -> Result<()> {
        let folder = self.pod.networks();
        fs::remove_dir(&folder).with_context(|| format!("delete {}", folder.display()))
    }

    /// Tells others, by `net-info.json`, which addresses the pod has (contract section 1.5).
    pub fn tell(&self, cards: &[Card]) -> Result<()> {
        let told = self.attachments.iter().zip(cards);
        let told = told.map(|((number, attachment), card)| {
            let first = card
                .told
                .addresses
                .iter()
                .find_map(|address| match address.ip {
                    IpAddr::V4(ip) => Some((ip, address.prefix)),
                    IpAddr::V6(_) => None,
                });
            let mask = |prefix: u8| {
                let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                std::net::Ipv4Addr::from(!host)
            };
            json!({
                "netName": attachment.network.name,
                "netConf": path(&self.pod, *number),
                "pluginPath": "",
                "ifName": attachment.interface,
                "ip": first.map_or(String::new(), |(ip, _)| ip.to_string()),
                "args": attachment.arguments,
                "mask": first.map_or(String::new(), |(_, prefix)| mask(prefix).to_string()),
            })
        });
        replace(&self.pod.network_info(), &told.collect::<Vec<_>>())
    }
}

fn path(pod: &PodDir, number: u8) -> PathBuf {
    pod.networks().join(format!("{number}.json"))
}

/// Writes a file anew: the old one is there until the new one is whole.
fn replace(path: &Path, content: &impl Serialize) -> Result<()> {
    let part = path.with_extension("part");
    let write = || -> Result<()> {
        let mut file = File::create(&part)?;
        file.write_all(&serde_json::to_vec(content)?)?;
        file.sync_all()?;
        Ok(fs::rename(&part, path)?)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use anyhow::{bail, ensure};
    use cni::Network;

    use super::*;

    fn attachment(number: u8) -> Result<Attachment> {
        Ok(Attachment {
            network: Network::parse(br#"{"name": "one", "type": "bridge"}"#)?,
            interface: format!("eth{number}"),
            arguments: String::new(),
            capabilities: serde_json::Map::new(),
            result: None,
        })
    }

    #[test]
    fn what_is_written_down_is_there_until_it_is_deleted_the_last_first() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let pod = PodDir::new(folder.path());
        assert!(Records::read(&pod)?.is_none());
        let attachments = (0..3).map(attachment).collect::<Result<Vec<_>>>()?;
        let mut records = Records::create(&pod, attachments)?;
        // The second plugin fails: the first one's answer is kept.
        let added = records.update(|attachment| {
            let name = attachment.interface.clone();
            ensure!(name != "eth1", "no address");
            attachment.result = Some(json!(name));
            Ok(())
        });
        assert!(added.is_err());
        let mut records = Records::read(&pod)?.context("written down")?;
        let results = records
            .attachments
            .iter()
            .map(|(_, one)| one.result.clone());
        let results: Vec<_> = results.collect();
        assert_eq!(results, [Some(json!("eth0")), None, None]);
        // One that cannot be deleted stays, and the others go.
        let order = std::cell::RefCell::new(Vec::new());
        let deleted = records.delete(|attachment| {
            order.borrow_mut().push(attachment.interface.clone());
            match &*attachment.interface {
                "eth1" => bail!("busy"),
                _ => Ok(()),
            }
        });
        assert!(deleted.is_err());
        assert_eq!(order.into_inner(), ["eth2", "eth1", "eth0"]);
        let mut records = Records::read(&pod)?.context("written down")?;
        let left: Vec<_> = records.attachments().map(|one| &*one.interface).collect();
        assert_eq!(left, ["eth1"]);
        records.delete(|_| Ok(()))?;
        records.forget()?;
        assert!(Records::read(&pod)?.is_none());
        Ok(())
    }

    #[test]
    fn record_that_is_damaged_is_named() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let pod = PodDir::new(folder.path());
        Records::create(&pod, vec![attachment(0)?])?;
        fs::write(path(&pod, 0), "{")?;
        let error = Records::read(&pod).err().context("it is refused")?;
        assert!(format!("{error:#}").contains("net/0.json"));
        Ok(())
    }
}
