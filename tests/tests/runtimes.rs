//! What people run: a database, a JVM, Node and a C compiler, in pods.
//!
//! Their image is imported beforehand by scripts/system-tests, on the machine itself: emulated, that takes minutes.

use std::process::{Command, Stdio};

use tests::{Finished, checkout, finish};

/// Runs `script` in the image of runtimes.
fn run(options: &[&str], script: &str) -> Finished {
    let store = std::env::var_os("FAIRING_TEST_RUNTIMES")
        .expect("FAIRING_TEST_RUNTIMES: run scripts/system-tests");
    let mut command = Command::new(checkout().join("target/fairing"));
    command
        .arg("--dir")
        .arg(store)
        .args(["run", "--rm", "--memory=700Mi"])
        .args(options)
        .arg("runtimes");
    let proof = "grep -q virtio_mmio.device=4K@0xd0000000 /proc/cmdline || exit 99; set -e; ";
    finish(
        command
            .args(["--", "/bin/sh", "-c", &format!("{proof}{script}")])
            .stdin(Stdio::null()),
    )
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
