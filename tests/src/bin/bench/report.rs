//! The table on stdout, and the same as JSON.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::counted::{Counted, Counts};
use crate::imports::Imports;
use crate::shares::{HOST, OURS, Shares};
use crate::subject::{MEMORY_MIB, Subject};

const PHASES: [&str; 7] = [
    "stage0",
    "vmm_setup",
    "kernel",
    "init",
    "first_byte",
    "end",
    "removal",
];

/// Joins the files of the measurements.
pub fn write(inputs: &[&str], output: &str) -> Result<()> {
    let [counted, wall, imports, places @ ..] = inputs else {
        bail!(
            "files of counts, wall clock and imports are reported, and one for each place of shared folders"
        );
    };
    let counted: Counted = read(counted)?;
    let wall: BTreeMap<Subject, u64> = read(wall)?;
    let imports: Imports = read(imports)?;
    let mut shares = Shares::new();
    for place in places {
        shares.extend(read::<Shares>(place)?);
    }
    print_phases(&counted);
    print_exits(&counted);
    print_idle(&counted);
    row(
        "wall clock of a whole run, ms",
        wall.get(&Subject::Fairing),
        wall.get(&Subject::Qemu),
    );
    print_imports(&imports);
    print_shares(&shares);
    print_targets(&counted, &imports, &shares);
    let of_idle = |pick: fn(&crate::idle::Idle) -> &Counts| -> BTreeMap<Subject, Counts> {
        counted
            .idle
            .iter()
            .map(|(subject, idle)| (*subject, pick(idle).clone()))
            .collect()
    };
    let all = json!({
        "memory_mib": MEMORY_MIB,
        "phase_instructions": counted.phase_instructions,
        "exits_by_reason": counted.exits_by_reason,
        "kvm_run_returns": counted.kvm_run_returns,
        "pss_kib": of_idle(|idle| &idle.pss_kib),
        "private_kib": of_idle(|idle| &idle.private_kib),
        "idle_wakeups": of_idle(|idle| &idle.wakeups),
        "idle_exits_by_reason": of_idle(|idle| &idle.exits_by_reason),
        "idle_kvm_run_returns": of_idle(|idle| &idle.kvm_run_returns),
        "wall_ms": wall,
        "image_import": imports,
        "shared_folders": shares,
    });
    fs::write(output, serde_json::to_string_pretty(&all)? + "\n")
        .with_context(|| format!("write {output}"))
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> Result<T> {
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    serde_json::from_str(&text).with_context(|| format!("read {file}"))
}

fn print_phases(counted: &Counted) {
    for (setting, phases) in &counted.phase_instructions {
        title(&format!("instructions, transparent huge pages: {setting}"));
        let [ours, theirs] = Subject::ALL.map(|subject| &phases[&subject]);
        for phase in PHASES {
            row(phase, ours.get(phase), theirs.get(phase));
        }
        row(
            "start to first byte",
            Some(&to_first_byte(ours)),
            Some(&to_first_byte(theirs)),
        );
    }
}

fn to_first_byte(phases: &Counts) -> u64 {
    PHASES[..5]
        .iter()
        .filter_map(|phase| phases.get(*phase))
        .sum()
}

fn print_exits(counted: &Counted) {
    table(
        "exits to the host's kernel",
        Subject::ALL.map(|subject| &counted.exits_by_reason[&subject]),
    );
    table(
        "returns of KVM_RUN",
        Subject::ALL.map(|subject| &counted.kvm_run_returns[&subject]),
    );
}

fn print_idle(counted: &Counted) {
    let of = |pick: fn(&crate::idle::Idle) -> &Counts| {
        Subject::ALL.map(|subject| pick(&counted.idle[&subject]))
    };
    table("idle pod: PSS, KiB", of(|idle| &idle.pss_kib));
    table("idle pod: private, KiB", of(|idle| &idle.private_kib));
    table(
        "idle pod: wake-ups in 10 s by thread",
        of(|idle| &idle.wakeups),
    );
    table("idle pod: exits in 10 s", of(|idle| &idle.exits_by_reason));
    table(
        "idle pod: returns of KVM_RUN in 10 s",
        of(|idle| &idle.kvm_run_returns),
    );
}

fn print_imports(imports: &Imports) {
    println!(
        "\nimage import, ms{:>30}{:>20}",
        "import", "decompress+sha256"
    );
    for (name, import) in &imports.by_compression {
        println!(
            "  {name:<34}{:>10}{:>20}",
            import.import_ms, import.baseline_ms
        );
    }
    println!("  peak memory, KiB{:>28}", imports.peak_rss_kib);
}

fn print_shares(shares: &Shares) {
    println!(
        "\nshared folders{:>34}{:>18}{:>18}{:>18}",
        "git status", "after a pause", "a transaction", "of 50,000 files"
    );
    for (place, worked) in shares {
        print!("  {place:<32}");
        for (what, of_host) in worked.named().iter().zip(shares[HOST].named()) {
            match (what.1, of_host.1) {
                (Some(took), Some(host)) => print!("{took:>12}{:>5}%", percent(took, host)),
                _ => print!("{:>18}", "-"),
            }
        }
        println!();
    }
}

fn print_targets(counted: &Counted, imports: &Imports, shares: &Shares) {
    println!("\ntargets");
    for (setting, phases) in &counted.phase_instructions {
        let [ours, theirs] = Subject::ALL.map(|subject| phases[&subject]["vmm_setup"]);
        verdict(
            ours * 4 <= theirs,
            &format!(
                "exec to first KVM_RUN, huge pages {setting}: {}% of the peer's (25)",
                percent(ours, theirs)
            ),
        );
    }
    let idle = &counted.idle[&Subject::Fairing];
    let private = idle.private_kib["rest"];
    verdict(
        private < 5 << 10,
        &format!("private memory outside guest memory: {private} KiB (5120)"),
    );
    // A vCPU's thread wakes for the guest's own timers.
    let ours: u64 = idle
        .wakeups
        .iter()
        .filter(|(thread, _)| !thread.starts_with("vcpu"))
        .map(|(_, count)| count)
        .sum();
    verdict(
        ours == 0,
        &format!("wake-ups of our own in 10 idle seconds: {ours} (0)"),
    );
    for (name, import) in &imports.by_compression {
        let percent = percent(import.import_ms, import.baseline_ms);
        verdict(
            percent <= 130,
            &format!("import of {name}: {percent}% of decompressing and hashing (130)"),
        );
    }
    let [host, ours] = [HOST, OURS].map(|place| shares[place].named());
    for ((what, ours), (_, host)) in ours.into_iter().zip(host) {
        let (Some(ours), Some(host)) = (ours, host) else {
            continue;
        };
        let percent = percent(ours, host);
        verdict(
            percent <= 200,
            &format!("{what}, {OURS}: {percent}% of the host's (200)"),
        );
    }
}

fn verdict(met: bool, text: &str) {
    println!("  {} {text}", if met { "met   " } else { "MISSED" });
}

fn percent(part: u64, whole: u64) -> u64 {
    part * 100 / whole.max(1)
}

fn title(text: &str) {
    println!("\n{text:<44}{:>14}{:>14}", "fairing", "qemu microvm");
}

fn row(name: &str, ours: Option<&u64>, theirs: Option<&u64>) {
    let cell = |value: Option<&u64>| value.map_or_else(|| "-".to_owned(), u64::to_string);
    println!("  {name:<42}{:>14}{:>14}", cell(ours), cell(theirs));
}

fn table(text: &str, [ours, theirs]: [&Counts; 2]) {
    title(text);
    let mut names: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        row(name, ours.get(name), theirs.get(name));
    }
}
