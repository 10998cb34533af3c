//! Sets an extended attribute, for images whose programs cannot: `set_attribute PATH NAME HEXADECIMAL`. `tests/commit` puts it
//! into a pod.

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [path, name, value] = &words[..] else {
        bail!("set_attribute PATH NAME HEXADECIMAL");
    };
    let pairs = (0..value.len()).step_by(2);
    let byte = |at| u8::from_str_radix(value.get(at..at + 2)?, 16).ok();
    let value: Option<Vec<_>> = pairs.map(byte).collect();
    let value = value.context("no hexadecimal digits")?;
    xattr::set(path, name, &value).with_context(|| format!("set {name} of {path}"))
}
