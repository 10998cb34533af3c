//! Programs of guest-init's own, run in an app's place as any command is, for what must work in every image and be the same
//! there. Called by `launch`. Links are resolved within the app's root, which is the process's.
//!
//! - `pack PATH NAME`: what is at PATH, as a tar on stdout whose entries are called NAME.
//! - `unpack PATH [NAME]`: the tar on stdin into the folder PATH; with NAME its one tree, which is called NAME in a folder PATH
//!   and PATH itself where there is none. All is root's.
//! - `processes`: what /proc says of the pod's processes, as JSON on stdout.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{dup2_stdin, dup2_stdout};
use tar::{Archive, EntryType};

use crate::stdio::TheirStdio;
use crate::{process, processes};

/// Bytes written at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// Runs the program that `exec` names, to its end, in a fresh child of PID 1.
pub fn run(exec: &[String], stdio: &TheirStdio, line: &OwnedFd) -> Result<()> {
    let TheirStdio::Pipes([stdin, stdout, _]) = stdio else {
        bail!("a built-in program needs no terminal");
    };
    let stdin = stdin.as_ref().map_or(Ok(()), dup2_stdin);
    stdin
        .and_then(|()| stdout.as_ref().map_or(Ok(()), dup2_stdout))
        .context("set the stdio")?;
    // No program is executed, which would do so. Of each pipe it would hold the other end, too, and never see its end.
    process::close_others(line.as_raw_fd());
    let words: Vec<_> = exec.iter().map(String::as_str).collect();
    match words[..] {
        ["pack", path, name] => pack(Path::new(path), name),
        ["unpack", path] => unpack(Path::new(path), None, io::stdin()),
        ["unpack", path, name] => unpack(Path::new(path), Some(name), io::stdin()),
        ["processes"] => {
            let mut to = output()?;
            serde_json::to_writer(&mut to, &processes::all()?)?;
            to.flush().context("hand the processes on")
        }
        _ => bail!("no such built-in program: {exec:?}"),
    }
}

/// Stdout, not by way of std's own buffer, which looks for lines and tells nobody when it fails at the end.
fn output() -> Result<BufWriter<File>> {
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    Ok(BufWriter::with_capacity(BUFFER_BYTES, stdout))
}

fn pack(path: &Path, name: &str) -> Result<()> {
    let mut to = output()?;
    archive::pack(path, name.as_bytes(), &mut to)?;
    to.flush().context("hand the archive on")
}

fn unpack(path: &Path, name: Option<&str>, from: impl Read) -> Result<()> {
    let is_folder = path.is_dir();
    ensure!(
        is_folder || name.is_some(),
        "{} is no folder of the app's",
        path.display()
    );
    let root = match name.filter(|_| is_folder) {
        Some(name) => path.join(name),
        None => path.to_owned(),
    };
    let place = |called: &Path| -> Result<PathBuf> {
        let mut parts = called.components();
        if name.is_some() {
            parts.next();
        }
        let mut place = root.clone();
        for part in parts {
            match part {
                Component::CurDir => {}
                Component::Normal(part) => place.push(part),
                _ => bail!("{} leads out of the archive", called.display()),
            }
        }
        Ok(place)
    };
    for entry in Archive::new(from).entries().context("read the archive")? {
        let mut entry = entry.context("read the archive")?;
        let target = place(&entry.path()?)?;
        let context = || format!("make {}", target.display());
        match entry.header().entry_type() {
            EntryType::Link => {
                let first = entry.link_name()?.context("a link to nothing")?;
                let _ = fs::remove_file(&target);
                fs::hard_link(place(&first)?, &target).with_context(context)?;
            }
            // One that is there stays as it is.
            EntryType::Directory if target.is_dir() => {}
            EntryType::Regular | EntryType::Directory | EntryType::Symlink => {
                entry.unpack(&target).with_context(context)?;
            }
            _ => bail!(
                "{} is a device or a pipe, which is not copied",
                target.display()
            ),
        }
    }
    Ok(())
}
