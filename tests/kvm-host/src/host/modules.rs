//! Which kernel modules the emulated host loads at its start, in an order in which each finds what it needs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The first four bring up the files and the agent's ports; the others have device nodes only once they are loaded.
/// All else is loaded on demand, by the machine's own modprobe.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_console",
    "virtiofs",
    "overlay",
    "kvm-amd",
    "loop",
    "tun",
    "vhost_net",
    "vhost_vsock",
];

/// The one folder under lib/modules.
pub fn release_folder(kernel: &Path) -> Result<PathBuf> {
    let path = kernel.join("lib/modules");
    let mut entries = fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
    match entries.next() {
        Some(entry) => Ok(entry?.path()),
        None => bail!("{} is empty", path.display()),
    }
}

/// Paths of all modules to load, dependencies first; those built into the kernel are left out.
pub fn load_order(release: &Path) -> Result<Vec<PathBuf>> {
    let read = |name: &str| {
        let path = release.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let dependencies = read("modules.dep")?;
    let order = order(&dependencies, &read("modules.builtin")?, &MODULES)?;
    Ok(order.into_iter().map(|path| release.join(path)).collect())
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// Works on depmod's text: a line is "path: paths that it needs, the first to be loaded last".
fn order<'a>(dependencies: &'a str, builtin: &str, wanted: &[&str]) -> Result<Vec<&'a str>> {
    let mut order: Vec<&str> = Vec::new();
    for name in wanted.iter().map(|name| name.replace('-', "_")) {
        let mut lines = dependencies.lines().filter_map(|line| line.split_once(':'));
        let Some((path, needs)) = lines.find(|(path, _)| name_of(path) == name) else {
            if builtin.lines().any(|path| name_of(path) == name) {
                continue;
            }
            bail!("the kernel package has no module {name}");
        };
        for path in needs.split_whitespace().rev().chain([path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "k/a-b.ko: k/c.ko k/d.ko\nk/c.ko: k/d.ko\nk/d.ko:\n";

    #[test]
    fn order_of_a_module_puts_what_it_needs_first_and_once() {
        assert_eq!(
            order(DEPENDENCIES, "", &["c", "a_b"]).unwrap(),
            ["k/d.ko", "k/c.ko", "k/a-b.ko"]
        );
    }

    #[test]
    fn order_of_a_built_in_module_is_empty_and_of_an_unknown_one_fails() {
        assert_eq!(
            order(DEPENDENCIES, "k/built-in.ko\n", &["built_in"]).unwrap(),
            Vec::<&str>::new()
        );
        assert!(order(DEPENDENCIES, "", &["built_in"]).is_err());
    }
}
