//! One image on its way here: bounded, resumed where it broke off, not fetched again where it has not changed.
//!
//! Each URL has a folder of its own, locked while somebody fetches it:
//!
//! ```text
//! part    the bytes so far
//! etag    of what they are a part of; without it they are fetched anew
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::{ETAG, HeaderMap, IF_NONE_MATCH, IF_RANGE, RANGE};
use transfer::{Attempts, Cancel, Fault, Paced, begins_at, broken};

use crate::cache::max_age;
use crate::client::{Client, Refused, refused};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// What is known of an earlier fetch.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The server's mark for what it sent.
    pub etag: Option<String>,
}

/// How a fetch has ended.
#[derive(Debug)]
pub enum Fetched {
    /// It is what it was.
    Unchanged {
        /// How long it need not be asked for again; `None` if that is as it was, too.
        max_age: Option<Duration>,
    },
    /// It is in this file.
    File {
        /// The whole image.
        path: PathBuf,
        /// The server's mark for it.
        etag: Option<String>,
        /// How long it need not be asked for again.
        max_age: Duration,
    },
}

/// A URL that is being fetched into a folder.
pub struct Download<'a> {
    /// Asks.
    pub client: &'a Client,
    /// What is asked for.
    pub url: &'a str,
    /// The folder for it, which is this caller's alone.
    pub folder: &'a Path,
    /// Bytes that it may have.
    pub limit: u64,
}

impl Download<'_> {
    /// Fetches it; `progress` is told the bytes there are, and how many there will be where that is known.
    ///
    /// # Errors
    /// If it cannot be had, or is larger than allowed; what has arrived stays for the next attempt.
    pub fn run(&self, known: &Remembered, progress: &dyn Fn(u64, Option<u64>)) -> Result<Fetched> {
        let cancel = Cancel::default();
        let mut attempts = Attempts::new(self.client.patience(), &cancel);
        let mut fetch = || -> Result<Fetched> {
            loop {
                attempts.reached(self.length());
                match self.attempt(known, progress) {
                    Ok(fetched) => return Ok(fetched),
                    Err(fault) => attempts.after(fault)?,
                }
            }
        };
        fetch().with_context(|| format!("fetch {}", self.url))
    }

    fn attempt(
        &self,
        known: &Remembered,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<Fetched, Fault> {
        let etag = fs::read_to_string(self.folder.join("etag")).ok();
        let have = match &etag {
            Some(_) => self.length(),
            None => 0,
        };
        let response = self
            .client
            .send(self.url, |request| match (&etag, &known.etag) {
                (Some(etag), _) if have > 0 => request
                    .header(RANGE, format!("bytes={have}-"))
                    .header(IF_RANGE, etag),
                (_, Some(known)) => request.header(IF_NONE_MATCH, known),
                _ => request,
            })?;
        let headers = response.headers();
        match response.status() {
            StatusCode::OK => self.receive(response, 0, progress),
            StatusCode::PARTIAL_CONTENT if begins_at(headers, have) => {
                self.receive(response, have, progress)
            }
            StatusCode::NOT_MODIFIED if known.etag.is_some() => Ok(Fetched::Unchanged {
                max_age: max_age(headers),
            }),
            status @ (StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT) => {
                self.forget()?;
                Err(Fault::Passing(Refused(status).into(), None))
            }
            _ => Err(refused(&response)),
        }
    }

    /// Appends the answer to the part from byte `from` on.
    fn receive(
        &self,
        response: Response,
        from: u64,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<Fetched, Fault> {
        let total = response
            .content_length()
            .map(|more| from.saturating_add(more));
        self.check(total.unwrap_or(from))?;
        let etag = mark(response.headers());
        let max_age = max_age(response.headers()).unwrap_or_default();
        let path = self.folder.join("part");
        let mut part = self.begin(&path, from, etag.as_deref())?;
        let mut at = from;
        let mut answer = Paced::new(response, self.client.patience());
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = answer.read(&mut buffer).map_err(|error| broken(&error))?;
            if count == 0 {
                break;
            }
            at += count as u64;
            self.check(at)?;
            part.write_all(&buffer[..count])
                .with_context(|| format!("write {}", path.display()))?;
            progress(at, total);
        }
        if total.is_some_and(|total| total != at) {
            return Err(Fault::passing("it ended too early"));
        }
        Ok(Fetched::File {
            path,
            etag,
            max_age,
        })
    }

    /// Opens the part at `from`, and notes what it is a part of first, or that nothing can be put after it.
    fn begin(&self, path: &Path, from: u64, etag: Option<&str>) -> Result<File> {
        if from == 0 {
            self.forget()?;
        }
        let open = || -> std::io::Result<File> {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(path)?;
            file.set_len(from)?;
            file.seek(SeekFrom::Start(from))?;
            // A weak mark says that two have the same meaning, not the same bytes.
            if let Some(etag) = etag.filter(|etag| from == 0 && !etag.starts_with("W/")) {
                fs::write(self.folder.join("etag"), etag)?;
            }
            Ok(file)
        };
        open().with_context(|| format!("write {}", path.display()))
    }

    fn forget(&self) -> Result<()> {
        for name in ["etag", "part"] {
            let path = self.folder.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check(&self, bytes: u64) -> Result<()> {
        if bytes > self.limit {
            self.forget()?;
            bail!("it has more than the {} bytes allowed", self.limit);
        }
        Ok(())
    }

    fn length(&self) -> u64 {
        let part = fs::metadata(self.folder.join("part"));
        part.map_or(0, |metadata| metadata.len())
    }
}

/// The server's mark for what it sends.
fn mark(headers: &HeaderMap) -> Option<String> {
    headers.get(ETAG)?.to_str().ok().map(str::to_owned)
}
