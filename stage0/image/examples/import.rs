//! Imports images into a store and says what they became and how long that took; for trials and measurements by hand:
//! `import STORE SOURCE…`.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use image::{ImportOptions, Store};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let dir = arguments.next().context("usage: import STORE SOURCE…")?;
    let store = Store::open(Path::new(&dir))?;
    for source in arguments {
        let begin = Instant::now();
        let image = store.import(Path::new(&source), &ImportOptions::default(), &|_| {})?;
        println!(
            "{} {:?} {:?} {} bytes, {} ms",
            image.id,
            image.kind,
            image.names,
            image.rootfs_bytes,
            begin.elapsed().as_millis()
        );
        println!("{}", serde_json::to_string(&image.manifest)?);
    }
    Ok(())
}
