//! The logs that a stage 1 keeps of its apps' outputs: `rkt/log/APP` in the pod directory, and `APP.1` that came before it;
//! records of the Kubernetes container runtime interface (time, stream, `F` or `P`, text).
//!
//! What is in there a machine's process has written, which its guest may have taken over: files are opened without
//! following links and read by a bounded line at a time, and a line that is no record is left out.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use contract::PodDir;
use humantime::parse_rfc3339;
use nix::libc;

/// The longest record, bytes.
const MAX_RECORD_BYTES: u64 = 64 << 10;

/// Something an app wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it passed through stage 1.
    pub time: SystemTime,
    /// Whether it is of stderr, not of stdout.
    pub is_error: bool,
    /// Whether its line ends with it.
    pub ends: bool,
    /// The text.
    pub text: Vec<u8>,
}

/// The log of one app, read on from where the last look ended.
#[derive(Debug)]
pub struct AppLog {
    path: PathBuf,
    /// The files that have not been read to their end, the last being written.
    files: Vec<BufReader<File>>,
    /// What was read of a record whose end is not written yet.
    rest: Vec<u8>,
}

impl AppLog {
    /// The log of `app` from its beginning, as far as it was kept.
    pub fn open(pod: &PodDir, app: &str) -> Self {
        let path = pod.logs().join(app);
        let before = path.with_file_name(format!("{app}.1"));
        let files = [&*before, &*path].into_iter().filter_map(open);
        Self {
            files: files.collect(),
            path,
            rest: Vec::new(),
        }
    }

    /// All records that are there now and were not given before.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(&mut self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        loop {
            // Whether there is a newer file is asked before this one's end is looked for: it got its last record before that.
            let next = match self.files.last() {
                Some(last) if is_at(last.get_ref(), &self.path) => None,
                _ => open(&self.path),
            };
            let found_next = next.is_some();
            self.files.extend(next);
            while let Some(file) = self.files.first_mut() {
                take_records(file, &mut self.rest, &mut records)
                    .with_context(|| format!("read log {}", self.path.display()))?;
                if self.files.len() == 1 {
                    break;
                }
                self.files.remove(0);
                self.rest.clear();
            }
            if !found_next {
                return Ok(records);
            }
        }
    }
}

fn open(path: &Path) -> Option<BufReader<File>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file
        .ok()
        .filter(|file| file.metadata().is_ok_and(|found| found.is_file()));
    file.map(BufReader::new)
}

fn is_at(file: &File, path: &Path) -> bool {
    let (open, there) = (file.metadata(), std::fs::symlink_metadata(path));
    match (open, there) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        // Just being replaced: the next look will find it.
        (_, Err(error)) => error.kind() == ErrorKind::NotFound,
        (Err(_), _) => false,
    }
}

fn take_records(
    file: &mut BufReader<File>,
    rest: &mut Vec<u8>,
    records: &mut Vec<Record>,
) -> Result<()> {
    loop {
        let room = MAX_RECORD_BYTES.saturating_sub(rest.len() as u64);
        let read = file.by_ref().take(room).read_until(b'\n', rest)?;
        if rest.last() == Some(&b'\n') {
            rest.pop();
            records.extend(parse(rest));
            rest.clear();
        } else if rest.len() as u64 >= MAX_RECORD_BYTES {
            rest.clear();
        } else if read == 0 {
            return Ok(());
        }
    }
}

fn parse(line: &[u8]) -> Option<Record> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = parse_rfc3339(std::str::from_utf8(parts.next()?).ok()?).ok()?;
    let is_error = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let ends = match parts.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Record {
        time,
        is_error,
        ends,
        text: parts.next()?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    const TIME: &str = "2026-01-02T03:04:05.000000006Z";

    struct Kept {
        folder: tempfile::TempDir,
        pod: PodDir,
    }

    impl Kept {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let pod = PodDir::new(folder.path());
            fs::create_dir_all(pod.logs()).expect("a folder");
            Self { folder, pod }
        }

        fn append(&self, name: &str, text: &str) {
            let path = self.pod.logs().join(name);
            let file = OpenOptions::new().create(true).append(true).open(path);
            let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
            written.expect("a log");
        }
    }

    fn texts(records: &[Record]) -> Vec<String> {
        let text = |record: &Record| String::from_utf8_lossy(&record.text).into_owned();
        records.iter().map(text).collect()
    }

    #[test]
    fn records_of_both_files_come_in_order_and_each_once() {
        let kept = Kept::new();
        kept.append("web.1", &format!("{TIME} stdout F one\n"));
        kept.append("web", &format!("{TIME} stderr P two\n{TIME} stdo"));
        let mut log = AppLog::open(&kept.pod, "web");
        let records = log.read().expect("a log");
        assert_eq!(texts(&records), ["one", "two"]);
        assert!(records[0].ends && !records[0].is_error);
        assert!(!records[1].ends && records[1].is_error);
        kept.append("web", "ut F three \n");
        assert_eq!(texts(&log.read().expect("a log")), ["three "]);
        assert!(log.read().expect("a log").is_empty());
    }

    #[test]
    fn log_that_is_replaced_is_read_on_in_its_successor() {
        let kept = Kept::new();
        let mut log = AppLog::open(&kept.pod, "web");
        assert!(log.read().expect("no log yet").is_empty());
        kept.append("web", &format!("{TIME} stdout F one\n"));
        assert_eq!(texts(&log.read().expect("a log")), ["one"]);
        kept.append("web", &format!("{TIME} stdout F two\n"));
        let place = |name: &str| kept.pod.logs().join(name);
        fs::rename(place("web"), place("web.1")).expect("a rename");
        kept.append("web", &format!("{TIME} stdout F three\n"));
        assert_eq!(texts(&log.read().expect("a log")), ["two", "three"]);
    }

    #[test]
    fn what_is_no_record_is_left_out_and_links_are_not_followed() {
        let kept = Kept::new();
        let long = "x".repeat(200_000);
        kept.append(
            "web",
            &format!("{TIME} stdout F {long}\nnoise\n\n{TIME} stdin F x\n"),
        );
        kept.append(
            "web",
            &format!("{TIME} stdout X x\n{TIME} stdout F\n{TIME} stdout F \n"),
        );
        let records = AppLog::open(&kept.pod, "web").read().expect("a log");
        assert_eq!(texts(&records), [""]);
        let secret = kept.folder.path().join("secret");
        fs::write(&secret, format!("{TIME} stdout F secret\n")).expect("a file");
        std::os::unix::fs::symlink(&secret, kept.pod.logs().join("db")).expect("a link");
        let mut log = AppLog::open(&kept.pod, "db");
        assert!(log.read().expect("no log").is_empty());
    }
}
