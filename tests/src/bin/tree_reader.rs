//! What an app sees of a shared folder that the host changes. Does what each line on stdin asks and answers with a line;
//! `tests/changes` puts it into a pod.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::stat::Mode;

/// Readings of a tree before the host is told.
const READINGS: usize = 10;

fn main() -> Result<()> {
    let mut reader = Reader {
        kept: None,
        events: Inotify::init(InitFlags::IN_NONBLOCK)?,
    };
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split(' ').collect();
        let answer = reader.answer(&words);
        say(&answer.unwrap_or_else(|error| format!("{error:#}")))?;
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

struct Reader {
    kept: Option<File>,
    events: Inotify,
}

impl Reader {
    fn answer(&mut self, words: &[&str]) -> Result<String> {
        match words {
            ["read", path] => Ok(fs::read_to_string(path)?),
            ["map", path] => map(path),
            ["list", path] => list(path),
            ["keep", path] => {
                self.kept = Some(File::open(path)?);
                Ok("kept".to_owned())
            }
            ["again"] => {
                let kept = self.kept.as_ref().context("nothing is kept")?;
                let mut bytes = vec![0; 100];
                let count = kept.read_at(&mut bytes, 0)?;
                Ok(String::from_utf8(bytes[..count].to_vec())?)
            }
            ["watch", path] => {
                self.events.add_watch(*path, AddWatchFlags::IN_ALL_EVENTS)?;
                Ok("watched".to_owned())
            }
            ["write", path] => {
                fs::write(path, "by the pod")?;
                Ok("written".to_owned())
            }
            ["events"] => Ok(self.changes()),
            ["follow", folder, rounds] => follow(folder, rounds.parse()?, read_tree),
            ["chase", folder, rounds] => follow(folder, rounds.parse()?, read_lasting_tree),
            _ => bail!("{words:?}: not understood"),
        }
    }

    /// The names of files that were made or written since the last look.
    fn changes(&self) -> String {
        let changed =
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE;
        // Without an event there is nothing to read.
        let events = self.events.read_events().unwrap_or_default().into_iter();
        let events = events.filter(|event| event.mask.intersects(changed));
        let mut names: Vec<_> = events
            .filter_map(|event| Some(event.name?.display().to_string()))
            .collect();
        names.dedup();
        names.join(" ")
    }
}

/// The first byte of a file as a new mapping shows it.
fn map(path: &str) -> Result<String> {
    let file = File::open(path)?;
    let length = NonZeroUsize::MIN;
    #[expect(unsafe_code, reason = "what is tried is the call itself")]
    // SAFETY: the mapping is new, read once within its length, and never unmapped.
    let byte = unsafe {
        let mapped = mmap(
            None,
            length,
            ProtFlags::PROT_READ,
            MapFlags::MAP_SHARED,
            &file,
            0,
        )?;
        mapped.cast::<u8>().read_volatile()
    };
    Ok(char::from(byte).to_string())
}

fn list(path: &str) -> Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().display().to_string());
    }
    names.sort();
    Ok(names.join(" "))
}

/// Reads a tree that the host swaps meanwhile by `read`; says after every few readings which version it is at.
fn follow(folder: &str, rounds: usize, read: fn(&str, u32) -> Result<u32>) -> Result<String> {
    let mut version = 0;
    for _ in 0..rounds {
        for _ in 0..READINGS {
            version = read(folder, version)?;
        }
        say(&format!("at {version}"))?;
    }
    Ok("followed".to_owned())
}

/// As `read_tree`, once no version goes away under it, as any may that is not the newest.
fn read_lasting_tree(folder: &str, last: u32) -> Result<u32> {
    loop {
        match read_tree(folder, last) {
            Err(error) if is_not_found(&error) => {}
            read => return read,
        }
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>().map(io::Error::kind);
    io == Some(io::ErrorKind::NotFound) || error.downcast_ref() == Some(&Errno::ENOENT)
}

/// The version of the tree, which must be whole and none before `last`.
fn read_tree(folder: &str, last: u32) -> Result<u32> {
    let linked = fs::read_to_string(format!("{folder}/word"));
    let linked = linked.context("read by links")?.parse()?;
    ensure!(linked >= last, "{linked} after {last}");
    let tree = File::open(format!("{folder}/..data")).context("open the tree")?;
    let read = |name: &str| -> Result<String> {
        let file = openat(
            tree.as_fd(),
            name,
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        let mut text = String::new();
        File::from(file.with_context(|| format!("open {name}"))?).read_to_string(&mut text)?;
        Ok(text)
    };
    let version: u32 = read("word")?.parse()?;
    ensure!(version >= linked, "{version} after {linked}");
    for other in read("many")?.split_terminator('\n') {
        ensure!(other.parse() == Ok(version), "{other} beside {version}");
    }
    Ok(version)
}
