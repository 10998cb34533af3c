//! Converts uncompressed layer tars, bottom first, into one EROFS file, and says what that took. For measurements
//! and comparisons by hand: `convert OUTPUT LAYER…`; `-` is standard input, a folder is taken as a root file system.

use std::fs::File;
use std::io::stdin;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use image::{Limits, Writer};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let output = arguments.next().context("usage: convert OUTPUT LAYER…")?;
    let begin = Instant::now();
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&output)?;
    let scratch_path = Path::new(&output).with_extension("scratch");
    let scratch = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&scratch_path)?;
    std::fs::remove_file(&scratch_path)?;
    let mut writer = Writer::new(file, scratch, Limits::default())?;
    for layer in arguments {
        if layer == "-" {
            writer.apply_layer(stdin().lock())?;
        } else if Path::new(&layer).is_dir() {
            writer.apply_folder(Path::new(&layer))?;
        } else {
            let tar =
                File::open(&layer).with_context(|| format!("open layer {}", layer.display()))?;
            writer
                .apply_layer(tar)
                .with_context(|| format!("layer {}", layer.display()))?;
        }
    }
    println!("{:#?}", writer.finish()?);
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or_default();
    println!("{:.2} s, {peak}", begin.elapsed().as_secs_f64());
    Ok(())
}
