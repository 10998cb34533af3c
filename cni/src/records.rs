//! What is written down of a container's attachments: a file for each, from before its plugins are executed until they have
//! deleted it, so that whoever comes after a killed caller knows what there is to delete.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use contract::bounded;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use crate::Attachment;

/// The largest file of these, bytes.
const LIMIT_BYTES: u64 = 4 << 20;

/// Extension of a file that is not whole yet.
const PART: &str = "part";

/// The attachments of a container, in order.
pub struct Records {
    folder: PathBuf,
    /// The folder, locked for as long as a plugin that was executed for it runs, whoever has executed it.
    lock: File,
    /// Each with the number that its file has.
    attachments: Vec<(usize, Attachment)>,
}

impl Records {
    /// Writes down what is going to be made, into a new folder.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn create(folder: &Path, attachments: Vec<Attachment>) -> Result<Self> {
        fs::create_dir(folder).with_context(|| format!("make {}", folder.display()))?;
        let records = Self {
            folder: folder.to_owned(),
            lock: lock(folder)?,
            attachments: attachments.into_iter().enumerate().collect(),
        };
        for (number, attachment) in &records.attachments {
            replace(&records.path(*number), attachment)?;
        }
        Ok(records)
    }

    /// What has been written down and not yet been deleted; `None` = there is no such folder. Waits for plugins that outlive
    /// whoever executed them: what they are about to make could not be deleted yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        if !folder.exists() {
            return Ok(None);
        }
        let lock = lock(folder)?;
        let entries = fs::read_dir(folder);
        let entries = entries.with_context(|| format!("read {}", folder.display()))?;
        let mut attachments = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_suffix(".json")?.parse().ok());
            // What else is there was being written when its writer was killed.
            let Some(number) = number else { continue };
            let json = File::open(&path).map_err(Into::into);
            let json = json.and_then(|file| bounded::read(file, LIMIT_BYTES));
            let attachment = json.and_then(|json| Ok(serde_json::from_slice(&json)?));
            let attachment = attachment.with_context(|| format!("read {}", path.display()))?;
            attachments.push((number, attachment));
        }
        attachments.sort_by_key(|(number, _)| *number);
        Ok(Some(Self {
            folder: folder.to_owned(),
            lock,
            attachments,
        }))
    }

    /// The attachments, in order.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.iter().map(|(_, attachment)| attachment)
    }

    /// Where an attachment is written down, by its place among all.
    pub fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number}.json"))
    }

    /// Has `add` add each, in order, which says of each step what has become of it.
    ///
    /// # Errors
    /// The first of `add`, or of writing down.
    pub fn add(
        &mut self,
        add: impl Fn(&mut Attachment, &dyn Fn(&Attachment) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let _inherited = self.lock_for_plugins()?;
        let paths: Vec<_> = self.numbers().map(|number| self.path(number)).collect();
        let mut attachments = self.attachments.iter_mut().zip(paths);
        attachments.try_for_each(|((_, attachment), path)| {
            add(attachment, &|attachment| replace(&path, attachment))
        })
    }

    /// Has `delete` delete each, the last one first, and forgets those that it has.
    ///
    /// # Errors
    /// The first of those that it has not deleted.
    pub fn delete(&mut self, delete: impl Fn(&Attachment) -> Result<()>) -> Result<()> {
        let _inherited = self.lock_for_plugins()?;
        let mut deleted = Ok(());
        for (number, attachment) in self.attachments.iter().rev() {
            let path = self.path(*number);
            let forget =
                || fs::remove_file(&path).with_context(|| format!("delete {}", path.display()));
            deleted = deleted.and(delete(attachment).and_then(|()| forget()));
        }
        deleted
    }

    /// Deletes the folder: there is nothing left to be taken down.
    ///
    /// # Errors
    /// When there is.
    pub fn forget(self) -> Result<()> {
        let folder = self.folder;
        let leftovers = fs::read_dir(&folder).into_iter().flatten().flatten();
        for part in leftovers.filter(|entry| entry.path().extension() == Some(PART.as_ref())) {
            let _ = fs::remove_file(part.path());
        }
        fs::remove_dir(&folder).with_context(|| format!("delete {}", folder.display()))
    }

    /// A descriptor of the lock that programs inherit which are executed meanwhile, and their children.
    fn lock_for_plugins(&self) -> Result<OwnedFd> {
        rustix::io::dup(&self.lock).context("hand the lock on records down")
    }

    fn numbers(&self) -> impl Iterator<Item = usize> {
        self.attachments.iter().map(|(number, _)| *number)
    }
}

fn lock(folder: &Path) -> Result<File> {
    let lock = || -> io::Result<File> {
        let file = File::open(folder)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    };
    lock().with_context(|| format!("lock {}", folder.display()))
}

/// Writes a file of JSON anew: the old one is there until the new one is whole.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, content: &impl Serialize) -> Result<()> {
    let part = path.with_extension(PART);
    let write = || -> Result<()> {
        let json = serde_json::to_vec(content)?;
        ensure!(
            json.len() as u64 <= LIMIT_BYTES,
            "it has more than {LIMIT_BYTES} bytes"
        );
        let mut file = File::create(&part)?;
        file.write_all(&json)?;
        file.sync_all()?;
        Ok(fs::rename(&part, path)?)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Network;
    use anyhow::bail;

    fn attachment(number: usize) -> Result<Attachment> {
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
        let parent = tempfile::tempdir()?;
        let folder = parent.path().join("net");
        assert!(Records::read(&folder)?.is_none());
        let attachments = (0..3).map(attachment).collect::<Result<Vec<_>>>()?;
        let mut records = Records::create(&folder, attachments)?;
        // The second plugin fails: the first one's answer is kept.
        let added = records.add(|attachment, keep| {
            let name = attachment.interface.clone();
            ensure!(name != "eth1", "no address");
            attachment.result = Some(serde_json::json!(name));
            keep(attachment)
        });
        assert!(added.is_err());
        drop(records);
        // What was being written when its writer was killed.
        fs::write(folder.join("1.part"), "{")?;
        let mut records = Records::read(&folder)?.context("written down")?;
        let results = records
            .attachments
            .iter()
            .map(|(_, one)| one.result.clone());
        let results: Vec<_> = results.collect();
        assert_eq!(results, [Some(serde_json::json!("eth0")), None, None]);
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
        drop(records);
        assert_eq!(order.into_inner(), ["eth2", "eth1", "eth0"]);
        let mut records = Records::read(&folder)?.context("written down")?;
        let left: Vec<_> = records.attachments().map(|one| &*one.interface).collect();
        assert_eq!(left, ["eth1"]);
        records.delete(|_| Ok(()))?;
        records.forget()?;
        assert!(Records::read(&folder)?.is_none());
        Ok(())
    }

    #[test]
    fn record_that_is_damaged_is_named() -> Result<()> {
        let parent = tempfile::tempdir()?;
        let folder = parent.path().join("net");
        Records::create(&folder, vec![attachment(0)?])?;
        fs::write(folder.join("0.json"), "{")?;
        let error = Records::read(&folder).err().context("it is refused")?;
        assert!(format!("{error:#}").contains("net/0.json"));
        Ok(())
    }
}
