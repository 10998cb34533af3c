//! How long `fairing image import` takes, against what nobody can save: reading, decompressing and hashing the same file.
//! Runs on the machine itself; needs no KVM.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use crate::wall::median;

const ROUNDS: usize = 3;

/// One kind of compression.
#[derive(Serialize, Deserialize)]
pub struct Import {
    /// Median of `fairing image import`, ms.
    pub import_ms: u64,
    /// Median of decompressing into sha256sum, ms.
    pub baseline_ms: u64,
}

/// All of it.
#[derive(Serialize, Deserialize)]
pub struct Imports {
    /// By compression.
    pub by_compression: BTreeMap<String, Import>,
    /// The most memory any import had at once, KiB.
    pub peak_rss_kib: u64,
}

/// Imports FOLDER/debian.tar.gz and .zst, which `scripts/bench` made, each into a fresh store.
pub fn measure(images: &str, packed: &str) -> Result<Imports> {
    let plain = Path::new(images).join("debian.tar");
    ensure!(
        plain.exists(),
        "{} is missing: run scripts/test-images",
        plain.display()
    );
    let files = [("gzip", "debian.tar.gz"), ("zstd", "debian.tar.zst")];
    // Imports first: the peak is of all children so far.
    let mut imports = BTreeMap::new();
    for (name, file) in files {
        imports.insert(name, times(|| import(&Path::new(packed).join(file)))?);
    }
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)
        .context("ask for the peak")?
        .max_rss();
    let mut by_compression = BTreeMap::new();
    for (name, file) in files {
        let baseline_ms = times(|| decompress_and_hash(name, &Path::new(packed).join(file)))?;
        by_compression.insert(
            name.to_owned(),
            Import {
                import_ms: imports[name],
                baseline_ms,
            },
        );
    }
    Ok(Imports {
        by_compression,
        peak_rss_kib: u64::try_from(peak)?,
    })
}

/// The median time of `work`, ms.
fn times(work: impl Fn() -> Result<()>) -> Result<u64> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        work()?;
        times.push(u64::try_from(started.elapsed().as_millis())?);
    }
    Ok(median(&times))
}

fn import(file: &Path) -> Result<()> {
    let store = tempfile::tempdir().context("make a store")?;
    let status = Command::new("target/fairing")
        .arg("--dir")
        .arg(store.path())
        .args(["image", "import"])
        .arg(file)
        .stdout(Stdio::null())
        .status()
        .context("start fairing")?;
    ensure!(status.success(), "import {}", file.display());
    Ok(())
}

fn decompress_and_hash(program: &str, file: &Path) -> Result<()> {
    let mut decompress = Command::new(program)
        .arg("-dc")
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let stdout = decompress.stdout.take().context("its stdout")?;
    let hash = Command::new("sha256sum")
        .stdin(stdout)
        .stdout(Stdio::null())
        .status();
    ensure!(
        hash.context("start sha256sum")?.success() && decompress.wait()?.success(),
        "hash {}",
        file.display()
    );
    Ok(())
}
