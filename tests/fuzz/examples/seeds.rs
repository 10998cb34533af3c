//! `seeds FOLDER`: writes the seeds of every target to FOLDER/TARGET/, for libFuzzer to begin from.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("usage: seeds FOLDER")?;
    for fuzz::Target { name, seeds, .. } in fuzz::TARGETS {
        let folder = PathBuf::from(&folder).join(name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        for (number, seed) in seeds().iter().enumerate() {
            let path = folder.join(format!("seed-{number}"));
            fs::write(&path, seed).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}
