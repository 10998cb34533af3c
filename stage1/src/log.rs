//! The apps' logs in the pod directory: `rkt/log/APP`, and `APP.1` that came before it. One line of an output is one record
//! in the format of the Kubernetes container runtime interface: time, stream, `F` for a whole line or `P` for a part of
//! one, text.
//!
//! Written by the pumps, each for its stream. A log that cannot be written is told of once and given up: the app goes on.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use contract::pod_dir::MAX_LOG_BYTES;
use humantime::format_rfc3339_nanos;
use nix::fcntl::{OFlag, renameat};

use crate::report;

/// The longest text of a record, bytes; a longer line is several records.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// The log of one app.
pub struct Log {
    folder: Arc<OwnedFd>,
    app: String,
    /// The file and its length, until writing fails.
    file: Option<(File, u64)>,
}

/// One output of an app on its way to the log.
pub struct Stream {
    log: Arc<Mutex<Log>>,
    name: &'static str,
    /// The line that has not ended.
    line: Vec<u8>,
}

impl Log {
    /// Begins the log of `app` in the report folder, or goes on with that of its life before.
    pub fn new(folder: Arc<OwnedFd>, app: &str) -> Self {
        let mut log = Self {
            folder,
            app: app.to_owned(),
            file: None,
        };
        match log.open() {
            Ok(opened) => log.file = Some(opened),
            Err(error) => log.give_up(&error),
        }
        log
    }

    fn open(&self) -> io::Result<(File, u64)> {
        let path = format!("log/{}", self.app);
        let mut file = report::open(&self.folder, &path, OFlag::O_APPEND, 0o640)?;
        let written = file.seek(SeekFrom::End(0))?;
        Ok((file, written))
    }

    fn write(&mut self, records: &[u8]) {
        if let Err(error) = self.try_write(records) {
            self.give_up(&error);
        }
    }

    fn try_write(&mut self, records: &[u8]) -> io::Result<()> {
        let Some((file, written)) = &mut self.file else {
            return Ok(());
        };
        file.write_all(records)?;
        *written += records.len() as u64;
        if *written >= MAX_LOG_BYTES {
            let path = format!("log/{}", self.app);
            renameat(&*self.folder, &*path, &*self.folder, &*format!("{path}.1"))?;
            self.file = Some(self.open()?);
        }
        Ok(())
    }

    fn give_up(&mut self, error: &io::Error) {
        self.file = None;
        crate::tell(&format!(
            "write the log of app {:?}: {error}; it is kept no longer",
            self.app
        ));
    }
}

impl Stream {
    /// The output `name` of the app whose log this is.
    pub fn new(log: Arc<Mutex<Log>>, name: &'static str) -> Self {
        Self {
            log,
            name,
            line: Vec::new(),
        }
    }

    /// Takes what the app has written.
    pub fn take(&mut self, bytes: &[u8]) {
        let time = now();
        let mut records = Vec::with_capacity(bytes.len() + 64);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let whole = piece.strip_suffix(b"\n");
            for part in whole.unwrap_or(piece).chunks(MAX_TEXT_BYTES) {
                if self.line.len() + part.len() > MAX_TEXT_BYTES {
                    self.record(&time, 'P', &mut records);
                }
                self.line.extend_from_slice(part);
            }
            if whole.is_some() {
                self.record(&time, 'F', &mut records);
            }
        }
        self.write(&records);
    }

    /// The output has ended.
    pub fn end(&mut self) {
        let mut records = Vec::new();
        if !self.line.is_empty() {
            self.record(&now(), 'P', &mut records);
        }
        self.write(&records);
    }

    fn record(&mut self, time: &str, flag: char, records: &mut Vec<u8>) {
        // Memory takes what it is given.
        let _ = write!(records, "{time} {} {flag} ", self.name);
        records.append(&mut self.line);
        records.push(b'\n');
    }

    fn write(&self, records: &[u8]) {
        if !records.is_empty() {
            let log = self.log.lock();
            log.unwrap_or_else(PoisonError::into_inner).write(records);
        }
    }
}

fn now() -> String {
    format_rfc3339_nanos(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kept {
        folder: tempfile::TempDir,
        log: Arc<Mutex<Log>>,
    }

    impl Kept {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::create_dir(folder.path().join("log")).expect("a folder");
            let descriptor = File::open(folder.path()).expect("a folder");
            let log = Log::new(Arc::new(descriptor.into()), "web");
            Self {
                folder,
                log: Arc::new(Mutex::new(log)),
            }
        }

        fn stream(&self, name: &'static str) -> Stream {
            Stream::new(Arc::clone(&self.log), name)
        }

        /// What records say, without their times.
        fn records(&self, name: &str) -> Vec<String> {
            let path = self.folder.path().join("log").join(name);
            let text = std::fs::read_to_string(path).expect("a log");
            let without_time = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_owned());
            text.lines().filter_map(without_time).collect()
        }
    }

    #[test]
    fn lines_of_both_outputs_are_records_however_they_arrive() {
        let kept = Kept::new();
        let (mut out, mut err) = (kept.stream("stdout"), kept.stream("stderr"));
        out.take(b"a\nb");
        err.take(b"bad\n\n");
        out.take(b"c\nrest");
        out.end();
        err.end();
        let records = kept.records("web");
        let expected = [
            "stdout F a",
            "stderr F bad",
            "stderr F ",
            "stdout F bc",
            "stdout P rest",
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn line_that_is_too_long_is_several_records() {
        let kept = Kept::new();
        let line = "x".repeat(2 * MAX_TEXT_BYTES + 5);
        let mut out = kept.stream("stdout");
        line.as_bytes()
            .chunks(10_000)
            .for_each(|piece| out.take(piece));
        out.take(b"\n");
        let mut records = kept.records("web");
        let last = records.pop().expect("a record");
        assert!(last.starts_with("stdout F x"));
        assert!(
            records
                .iter()
                .all(|record| record.starts_with("stdout P x"))
        );
        let text = |record: &String| record["stdout P ".len()..].len();
        assert_eq!(
            records.iter().map(text).sum::<usize>() + text(&last),
            line.len()
        );
        assert!(records.iter().all(|record| text(record) <= MAX_TEXT_BYTES));
    }

    #[test]
    fn log_that_is_full_makes_room_and_keeps_the_one_before() {
        let kept = Kept::new();
        let mut out = kept.stream("stdout");
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..=MAX_LOG_BYTES / 512 {
            out.take(&line);
        }
        let length = |name: &str| {
            let path = kept.folder.path().join("log").join(name);
            std::fs::metadata(path).expect("a log").len()
        };
        let one = MAX_LOG_BYTES..MAX_LOG_BYTES + 2048;
        assert!(one.contains(&length("web.1")) && length("web") < MAX_LOG_BYTES);
    }
}
