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
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::{
    CACHE_CONTROL, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_NONE_MATCH, IF_RANGE, RANGE,
};

use crate::client::{Client, Refused};

/// Attempts that bring less than `LEAST_BYTES`.
const ATTEMPTS: u32 = 4;
/// Before the second attempt; before each further one twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// Within each time of this length `LEAST_BYTES` must arrive.
const PACE: Duration = Duration::from_secs(30);
/// As much as makes up for attempts before it, too: a server that breaks off each time is not waited for without end.
const LEAST_BYTES: u64 = 30 << 10;
/// Longest time for which an answer is believed to be current.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

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
    Unchanged,
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

/// What an attempt has come to.
enum Attempt {
    Done(Fetched),
    /// It broke off, and may go on.
    Broken(anyhow::Error),
}

impl Download<'_> {
    /// Fetches it; `progress` is told the bytes there are, and how many there will be where that is known.
    ///
    /// # Errors
    /// If it cannot be had, or is larger than allowed; what has arrived stays for the next attempt.
    pub fn run(&self, known: &Remembered, progress: &dyn Fn(u64, Option<u64>)) -> Result<Fetched> {
        let fetch = || {
            let mut left = ATTEMPTS;
            let mut pause = PAUSE;
            loop {
                let before = self.length();
                match self.attempt(known, progress)? {
                    Attempt::Done(fetched) => return Ok(fetched),
                    Attempt::Broken(error) if left == 1 => return Err(error),
                    Attempt::Broken(error) => {
                        tracing::debug!("{error:#}; trying again");
                        (left, pause) = match self.length() >= before + LEAST_BYTES {
                            true => (ATTEMPTS, PAUSE),
                            false => (left - 1, pause * 2),
                        };
                        std::thread::sleep(pause);
                    }
                }
            }
        };
        fetch().with_context(|| format!("fetch {}", self.url))
    }

    fn attempt(&self, known: &Remembered, progress: &dyn Fn(u64, Option<u64>)) -> Result<Attempt> {
        let etag = fs::read_to_string(self.folder.join("etag")).ok();
        let have = match &etag {
            Some(_) => self.length(),
            None => 0,
        };
        let sent = self
            .client
            .send(self.url, |request| match (&etag, &known.etag) {
                (Some(etag), _) if have > 0 => request
                    .header(RANGE, format!("bytes={have}-"))
                    .header(IF_RANGE, etag),
                (_, Some(known)) => request.header(IF_NONE_MATCH, known),
                _ => request,
            });
        let mut response = match sent {
            Ok(response) => response,
            Err(error) if is_lost(&error) => return Ok(Attempt::Broken(error)),
            Err(error) => return Err(error),
        };
        let from = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if begins_at(response.headers(), have) => have,
            StatusCode::NOT_MODIFIED if known.etag.is_some() => {
                return Ok(Attempt::Done(Fetched::Unchanged));
            }
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT => {
                self.forget()?;
                return Ok(Attempt::Broken(Refused(response.status()).into()));
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Ok(Attempt::Broken(Refused(status).into()));
            }
            status => return Err(Refused(status).into()),
        };
        self.receive(&mut response, from, progress)
    }

    /// Appends the answer to the part from byte `from` on.
    fn receive(
        &self,
        response: &mut Response,
        from: u64,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<Attempt> {
        let total = response
            .content_length()
            .map(|more| from.saturating_add(more));
        self.check(total.unwrap_or(from))?;
        let etag = text(response.headers(), &ETAG);
        let max_age = max_age(response.headers());
        let path = self.folder.join("part");
        let mut part = self.begin(&path, from, etag.as_deref())?;
        let mut at = from;
        let mut buffer = vec![0; 128 << 10];
        let mut pace = (Instant::now(), at);
        loop {
            let count = match response.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Ok(Attempt::Broken(error.into())),
            };
            at += count as u64;
            self.check(at)?;
            part.write_all(&buffer[..count])
                .with_context(|| format!("write {}", path.display()))?;
            progress(at, total);
            if pace.0.elapsed() > PACE {
                ensure!(
                    at - pace.1 >= LEAST_BYTES,
                    "it comes too slowly, less than {LEAST_BYTES} bytes in {} seconds",
                    PACE.as_secs()
                );
                pace = (Instant::now(), at);
            }
        }
        if total.is_some_and(|total| total != at) {
            return Ok(Attempt::Broken(anyhow::anyhow!("it ended too early")));
        }
        Ok(Attempt::Done(Fetched::File {
            path,
            etag,
            max_age,
        }))
    }

    /// Opens the part at `from`, and notes what it is a part of first, or that nothing can be put after it.
    fn begin(&self, path: &Path, from: u64, etag: Option<&str>) -> Result<File> {
        let open = || -> std::io::Result<File> {
            if from == 0 {
                self.forget()?;
            }
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

    fn forget(&self) -> std::io::Result<()> {
        for name in ["etag", "part"] {
            match fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
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

/// Whether asking again may help: not where the server is not who it should be, or leads in circles.
fn is_lost(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<reqwest::Error>();
    error.is_some_and(|error| error.is_timeout() || (error.is_request() && !error.is_connect()))
}

fn begins_at(headers: &HeaderMap, have: u64) -> bool {
    text(headers, &CONTENT_RANGE).is_some_and(|range| range.starts_with(&format!("bytes {have}-")))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// RFC 9111, section 5.2.2.
fn max_age(headers: &HeaderMap) -> Duration {
    let told = text(headers, &CACHE_CONTROL).unwrap_or_default();
    let mut told = told.split(',').map(str::trim);
    let Some(seconds) = told.clone().find_map(|part| part.strip_prefix("max-age=")) else {
        return Duration::ZERO;
    };
    if told.any(|part| matches!(part, "no-cache" | "no-store")) {
        return Duration::ZERO;
    }
    let seconds = seconds.parse().unwrap_or_default();
    Duration::from_secs(seconds).min(MAX_AGE)
}
