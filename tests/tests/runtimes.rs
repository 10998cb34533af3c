//! What people run: a database, a JVM, Node and a C compiler, in pods.

use std::process::Command;
use std::time::Duration;

use tests::{Finished, fairing_with_runtimes, finish, finish_within, proved, rounds, tell};

/// A pod of the image of runtimes that runs `script` up to its first failure.
fn pod(options: &[&str], script: &str) -> Command {
    let mut command = fairing_with_runtimes();
    command
        .args(["run", "--rm", "--memory=700Mi"])
        .args(options)
        .arg("runtimes");
    let script = proved(&format!("set -e; {script}"));
    command.args(["--", "/bin/sh", "-c", &script]);
    command
}

fn run(options: &[&str], script: &str) -> Finished {
    finish(&mut pod(options, script))
}

#[test]
fn postgresql_makes_a_cluster_and_answers() {
    let script = "export PATH=$PATH:$(echo /usr/lib/postgresql/*/bin) PGDATA=/var/lib/postgresql/data; \
                  initdb --no-sync >/dev/null; pg_ctl -s -w -t 100 -l /tmp/log -o '-k /tmp' start >/dev/null; \
                  psql -h /tmp -d postgres -tAc 'select 6 * 7'; pg_ctl -s -m fast stop";
    let finished = run(&["--user=postgres", "--group=postgres"], script).expect_code(0);
    assert_eq!(finished.out(), "42\n", "{}", finished.err());
}

#[test]
fn jvm_node_and_c_compiler_run() {
    let script = "java -version 2>&1 | grep -c 'OpenJDK.*VM'; node -e 'console.log(6 * 7)'; \
                  echo 'int puts(const char *); int main(void) { return puts(\"compiled\") < 0; }' >/tmp/a.c; \
                  gcc -O2 -o /tmp/a /tmp/a.c && /tmp/a";
    let finished = run(&[], script).expect_code(0);
    assert_eq!(finished.out(), "1\n42\ncompiled\n", "{}", finished.err());
}

/// How long the long jobs may take, emulated.
const HOURS: Duration = Duration::from_secs(3 * 3600);

fn run_long(script: &str) -> Finished {
    finish_within(HOURS, &mut pod(&["--cpus=1"], script))
}

#[test]
fn debian_source_package_builds_and_passes_its_tests() {
    let script = "cd /tmp; tar xf /usr/src/hello_*.orig.tar.gz; cd hello-*; \
                  (FORCE_UNSAFE_CONFIGURE=1 ./configure && make && make check) >/tmp/log 2>&1 || { tail -n 50 /tmp/log; exit 1; }; \
                  ./hello; grep -c '^PASS' /tmp/log";
    for _ in 0..rounds("builds of a whole package", 0, 1) {
        let finished = run_long(script);
        tell(&finished.out());
        let finished = finished.expect_code(0);
        let passed = finished
            .out()
            .lines()
            .last()
            .and_then(|line| line.parse::<u32>().ok());
        assert!(
            finished.out().starts_with("Hello, world!\n") && passed > Some(0),
            "{}",
            finished.out()
        );
    }
}

#[test]
fn source_package_unpacked_on_the_writable_layer_keeps_its_checksums() {
    // Sums of what tar hands out, then, with nothing of it cached any more, of what lies on the disk.
    let script = "cd /usr/src; package=$(echo /usr/src/hello*.orig.tar.gz); cd /var/tmp; \
                  tar xf $package --to-command='sha256sum | tr -d \"\\n\"; echo \" $TAR_FILENAME\"' | sed 's/ -//' >sums; \
                  tar xf $package; sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum --quiet -c sums; wc -l <sums";
    let finished = run_long(script).expect_code(0);
    tell(&format!("{} files", finished.out().trim()));
    assert!(
        finished
            .out()
            .trim()
            .parse::<u32>()
            .is_ok_and(|files| files > 300),
        "{}",
        finished.out()
    );
}
