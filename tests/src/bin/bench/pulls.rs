//! How long it takes until an image of a registry is there to be run, and what it costs: fairing beside podman, and beside
//! skopeo with umoci. Called by `scripts/bench-pulls` as root, on the machine itself; needs no KVM.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tests::registry::Registry;

use crate::wall::median;

const ROUNDS: usize = 3;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What is measured: a name, and shell in a folder of its own, with the image's URL as `$1` and a name for it as `$2`.
const SUBJECTS: [(&str, &str); 3] = [
    (
        "fairing",
        r#""$FAIRING" --dir=store image pull "docker://$1" >log"#,
    ),
    (
        "podman",
        r#"podman --root="$PWD/storage" --runroot="$PWD/run" --storage-driver=overlay pull -q --tls-verify=false "docker://$1" >log"#,
    ),
    (
        "skopeo, umoci",
        r#"skopeo copy -q --src-tls-verify=false "docker://$1" "oci:layout:$2" && umoci unpack --image "layout:$2" "$2" 2>log"#,
    ),
];

/// What one pull took.
#[derive(Clone, Copy)]
struct Cost {
    wall_ms: u64,
    cpu_ms: u64,
    /// The most that all processes had at one time.
    memory_kib: u64,
    disk_kib: u64,
}

/// Measures the pull of `first`, and of `second` after it, which shares all but its last layer; both tags of `layout`.
pub fn measure(layout: &str, first: &str, second: &str) -> Result<()> {
    // Whoever loses its parent is ours, and its time counts.
    nix::sys::prctl::set_child_subreaper(true).context("become the parent of orphans")?;
    let registry = Registry::below(Path::new("/var/tmp"));
    for tag in [first, second] {
        registry.push(Path::new(layout), tag, tag);
    }
    println!(
        "{:<15}{:<8}{:>9}{:>9}{:>13}{:>11}",
        "", "image", "wall, s", "CPU, s", "memory, MiB", "disk, MiB"
    );
    for (name, script) in SUBJECTS {
        let mut costs: HashMap<&str, Vec<Cost>> = HashMap::new();
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir_in("/var/tmp").context("make a folder")?;
            for tag in [first, second] {
                let url = format!("{}/{tag}", registry.host);
                let cost = pull(script, folder.path(), &url, tag)
                    .with_context(|| format!("{name}: pull {tag}"))?;
                costs.entry(tag).or_default().push(cost);
            }
        }
        for tag in [first, second] {
            print(name, tag, &costs[tag]);
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure of three digits")]
fn print(name: &str, tag: &str, costs: &[Cost]) {
    let of = |part: fn(&Cost) -> u64| median(&costs.iter().map(part).collect::<Vec<_>>()) as f64;
    println!(
        "{name:<15}{tag:<8}{:>9.1}{:>9.1}{:>13.0}{:>11.0}",
        of(|cost| cost.wall_ms) / 1000.0,
        of(|cost| cost.cpu_ms) / 1000.0,
        of(|cost| cost.memory_kib) / 1024.0,
        of(|cost| cost.disk_kib) / 1024.0
    );
}

fn pull(script: &str, folder: &Path, url: &str, name: &str) -> Result<Cost> {
    let before = (disk_kib(folder)?, cpu_ms()?, Instant::now());
    let mut child = Command::new("sh")
        .args(["-ec", script, "sh", url, name])
        .env(
            "FAIRING",
            fs::canonicalize("target/fairing").context("find fairing")?,
        )
        .env("HOME", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .spawn()
        .context("start a shell")?;
    let memory_kib = peak_until_end(&mut child)?;
    let wall_ms = u64::try_from(before.2.elapsed().as_millis())?;
    Ok(Cost {
        wall_ms,
        cpu_ms: cpu_ms()? - before.1,
        memory_kib,
        disk_kib: disk_kib(folder)? - before.0,
    })
}

/// The most memory that `child` and all that it starts have at one time, in KiB, once it has ended well.
fn peak_until_end(child: &mut Child) -> Result<u64> {
    let mut peak = 0;
    loop {
        peak = peak.max(memory_kib(child.id()));
        if let Some(status) = child.try_wait().context("wait for the shell")? {
            ensure!(status.success(), "it ended with {status}");
            return Ok(peak);
        }
        thread::sleep(LOOK);
    }
}

/// What `root` and its descendants have in memory, in KiB; what some of them share counts for each.
fn memory_kib(root: u32) -> u64 {
    let mut processes = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid
            && let Some(found) = parent_and_memory(&entry.path())
        {
            processes.insert(pid, found);
        }
    }
    let parent = |pid: &u32| processes.get(pid).map(|(parent, _)| *parent);
    let is_ours = |pid: u32| {
        std::iter::successors(Some(pid), parent)
            .take(64)
            .any(|pid| pid == root)
    };
    let ours = processes.iter().filter(|(pid, _)| is_ours(**pid));
    ours.map(|(_, (_, kib))| kib).sum()
}

fn parent_and_memory(process: &Path) -> Option<(u32, u64)> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((
        u32::try_from(value("PPid:")?).ok()?,
        value("VmRSS:").unwrap_or(0),
    ))
}

/// What all that was started and has ended took of the CPUs.
fn cpu_ms() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask for CPU time")?;
    let sum = usage.user_time() + usage.system_time();
    Ok(u64::try_from(sum.num_milliseconds())?)
}

fn disk_kib(folder: &Path) -> Result<u64> {
    let output = Command::new("du")
        .args(["-skx"])
        .arg(folder)
        .output()
        .context("start du")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let kib = text.split_whitespace().next().context("du says nothing")?;
    kib.parse().context("read what du says")
}
