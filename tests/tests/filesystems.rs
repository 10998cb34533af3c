//! Suites that try file systems, on a shared folder beside the file system of the host below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tests::mounted::Mounted;
use tests::{fairing_with_runtimes, finish, proved, tell, temporary};

/// Features that a file system on Linux may have, and two users besides root, whom Debian has.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// In the folder that is tried; the other file system is for what does not go across.
const SUITE: &str = "./pjdfstest --configuration-file pjdfstest.toml --secondary-fs /tmp";

/// Cases that are not tried on a share: the guest's kernel does not know how many links a file may have, and an app may not mount.
const NOT_TRIED: [&str; 2] = ["link::link_count_max", "rmdir::ebusy"];

/// Device nodes, which a share does not have (docs/volumes.md).
fn is_about_devices(case: &str) -> bool {
    case.ends_with("::block") || case.ends_with("::char")
}

/// What became of the cases of pjdfstest.
#[derive(Debug)]
struct Cases {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
    skipped: BTreeSet<String>,
}

impl Cases {
    /// Those of a run, by what it printed.
    fn read(printed: &str) -> Self {
        let ended = |end: &str| {
            let names = printed.lines().filter_map(|line| line.strip_suffix(end));
            names.map(|name| name.trim().to_owned()).collect()
        };
        Self {
            passed: ended(" ok"),
            failed: ended(" FAILED"),
            skipped: ended(" skipped"),
        }
    }
}

/// Puts the suite into `folder`.
fn place_suite(folder: &Path) {
    let program =
        std::env::var_os("FAIRING_PJDFSTEST").expect("FAIRING_PJDFSTEST: run scripts/system-tests");
    fs::copy(program, folder.join("pjdfstest")).expect("the program is built");
    fs::write(folder.join("pjdfstest.toml"), CONFIGURATION).expect("room for a file");
}

#[test]
fn shared_folder_fails_no_case_of_pjdfstest_that_the_hosts_file_system_passes() {
    let folder = temporary("fairing-suite-");
    let disk = Mounted::ext4(folder.path(), "disk");
    place_suite(disk.path());

    let mut host = Command::new("sh");
    host.args(["-c", SUITE]).current_dir(disk.path());
    let host = Cases::read(&finish(&mut host).out());
    let share = format!("-v={}:/share", disk.path().display());
    let begun = Instant::now();
    // The image has those users, and a program that sleeps under any name, which busybox does not.
    let mut command = fairing_with_runtimes();
    command.args(["run", "--rm", "--workdir=/share", &share, "runtimes"]);
    command.args(["--", "/bin/sh", "-c", &proved(SUITE)]);
    let printed = finish(&mut command).out();
    let pod = Cases::read(&printed);
    tell(&format!(
        "host: {} passed, {} failed; share: {} passed, {} failed, in {:.0} s",
        host.passed.len(),
        host.failed.len(),
        pod.passed.len(),
        pod.failed.len(),
        begun.elapsed().as_secs_f64()
    ));

    let failed: Vec<_> = pod.failed.difference(&host.failed).collect();
    let others: Vec<_> = failed
        .iter()
        .filter(|case| !is_about_devices(case))
        .collect();
    assert!(others.is_empty(), "{others:?} in {printed}");
    let skipped: Vec<_> = pod.skipped.difference(&host.skipped).collect();
    assert_eq!(skipped, NOT_TRIED, "{printed}");
    assert!(pod.passed.len() > 300, "{printed}");
}
