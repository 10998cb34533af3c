//! The folder of one URL in the store's `downloads`: what has arrived of its image, and what became of it.
//!
//! ```text
//! downloads/KEY/part, etag    see `discovery::Download`
//! downloads/KEY/record.json   the image that it became, and when that was
//! ```
//!
//! One command at a time is in it. What nobody has asked for in a week goes.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use image::is_at;
use image::oci::{Algorithm, Digest};
use serde::{Deserialize, Serialize};

const RECORD: &str = "record.json";

/// A folder that nobody has asked for in this time is removed.
const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 3600);

/// The folder of one URL, locked.
pub struct Place {
    folder: PathBuf,
    /// Keeps the lock.
    _lock: File,
}

/// What a URL's image became.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Whether its signature was good.
    pub verified: bool,
    /// Seconds since 1970.
    asked: u64,
    /// Seconds from then on for which it need not be asked for.
    max_age: u64,
}

impl Record {
    /// An image that has just come.
    pub fn new(id: &str, etag: Option<String>, max_age: Duration, verified: bool) -> Self {
        Self {
            id: id.to_owned(),
            etag,
            verified,
            asked: seconds(SystemTime::now()),
            max_age: max_age.as_secs(),
        }
    }

    /// The same, known to be what the server has now, and perhaps for how long from now on.
    pub fn asked_again(&self, max_age: Option<Duration>) -> Self {
        Self {
            asked: seconds(SystemTime::now()),
            max_age: max_age.map_or(self.max_age, |age| age.as_secs()),
            ..self.clone()
        }
    }

    /// Whether the server has said that it will be the same for so long.
    pub fn is_current(&self, now: SystemTime) -> bool {
        let now = seconds(now);
        now >= self.asked && now - self.asked < self.max_age
    }
}

impl Place {
    /// The folder for `url`; waits while another command is in it.
    ///
    /// # Errors
    /// If it cannot be made or locked.
    pub fn enter(downloads: &Path, url: &str) -> Result<Self> {
        sweep(downloads);
        let key = Digest::of(Algorithm::Sha256, url.as_bytes());
        let folder = downloads.join(key.hex());
        let lock = loop {
            let enter = || -> std::io::Result<File> {
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(0o750).create(&folder)?;
                let lock = File::open(&folder)?;
                lock.lock()?;
                Ok(lock)
            };
            let lock = match enter() {
                // A sweeper was faster.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entered => entered.with_context(|| format!("lock {}", folder.display()))?,
            };
            if is_at(&lock, &folder) {
                break lock;
            }
        };
        // The time of the folder is that of the last who asked.
        let _ = lock.set_modified(SystemTime::now());
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What became of the URL's image, if it has been fetched; a record that cannot be read is none.
    ///
    /// # Errors
    /// If it is there, but cannot be read.
    pub fn record(&self) -> Result<Option<Record>> {
        read_record(&self.folder)
    }

    /// Keeps `record`, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn remember(&self, record: &Record) -> Result<()> {
        let (new, path) = (self.folder.join("new"), self.folder.join(RECORD));
        let write = || -> Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            Ok(())
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Removes what has arrived.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn clear(&self) -> Result<()> {
        clear(&self.folder)
    }
}

/// Removes the folders that nobody has asked for lately; one that cannot be removed is left to the next time.
pub fn sweep(downloads: &Path) {
    each_free(downloads, |folder, idle| {
        if idle > FORGOTTEN {
            let _ = fs::remove_dir_all(folder);
        }
    });
}

/// Removes what nobody has asked for in this time, but for what is known of images that `is_kept` says are in the store.
pub fn collect(downloads: &Path, period: Duration, is_kept: impl Fn(&str) -> bool) {
    each_free(downloads, |folder, idle| {
        if idle < period {
            return;
        }
        let record = read_record(folder).ok().flatten();
        let _ = match record.is_some_and(|record| is_kept(&record.id)) {
            true => clear(folder),
            false => fs::remove_dir_all(folder).map_err(Into::into),
        };
    });
}

/// Tells of each folder that nobody is in, and holds it meanwhile, how long nobody has asked for it.
fn each_free(downloads: &Path, tell: impl Fn(&Path, Duration)) {
    let Ok(entries) = fs::read_dir(downloads) else {
        return;
    };
    for entry in entries.flatten() {
        let folder = entry.path();
        let Ok(lock) = File::open(&folder) else {
            continue;
        };
        let asked = lock.metadata().and_then(|metadata| metadata.modified());
        let idle = asked.map(|asked| SystemTime::now().duration_since(asked));
        if let Ok(Ok(idle)) = idle
            && lock.try_lock().is_ok()
            && is_at(&lock, &folder)
        {
            tell(&folder, idle);
        }
    }
}

fn read_record(folder: &Path) -> Result<Option<Record>> {
    let path = folder.join(RECORD);
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn clear(folder: &Path) -> Result<()> {
    for name in ["etag", "part"] {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
