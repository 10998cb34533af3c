//! A CI sandbox: a git tree of the host as a volume, a build and its tests in a pod, the artefact on another volume, and a job that
//! does not end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::{
    Finished, fairing_with_runtimes, finish, finish_with, finish_within, proved, rounds, temporary,
};

/// How long a job may take, emulated.
const HOURS: Duration = Duration::from_secs(3 * 3600);

/// A checkout of what is built, and where the artefact goes.
struct Job(tempfile::TempDir);

impl Job {
    fn new() -> Self {
        let job = Self(temporary("fairing-ci-"));
        for folder in ["tree", "out"] {
            fs::create_dir(job.path(folder)).expect("a folder");
        }
        job
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.path("tree"));
        git.args(["-c", "user.name=ci", "-c", "user.email=ci@localhost"]);
        finish(git.args(arguments)).expect_code(0).out()
    }

    /// Makes the tree a repository of what is in it.
    fn commit(&self) {
        self.git(&["init", "--quiet"]);
        self.git(&["add", "--force", "."]);
        self.git(&["commit", "--quiet", "--message=all"]);
        assert_eq!(self.git(&["status", "--porcelain"]), "");
    }

    /// Runs `script` in the tree.
    fn run(&self, options: &[&str], script: &str) -> Finished {
        let volume = |name: &str| format!("-v={}:/{name}", self.path(name).display());
        let mut command = fairing_with_runtimes();
        command.args(["run", "--rm", "--memory=700Mi", "--workdir=/tree"]);
        command.args([volume("tree"), volume("out")]).args(options);
        let script = proved(&format!("set -e; {script}"));
        command.args(["runtimes", "--", "/bin/sh", "-c", &script]);
        finish_within(HOURS, &mut command)
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("room for a file");
}

const BUILD: &str = "(make && make check) >/out/log 2>&1 || { tail -n 50 /out/log; exit 1; }";

/// The program `sum`, which adds its arguments, in the ways of a small package.
fn small_package(tree: &Path) {
    write(
        &tree.join("sum.c"),
        "#include <stdio.h>\n#include <stdlib.h>\nint main(int n, char **words) {\n\
         long sum = 0;\nwhile (--n > 0) sum += strtol(words[n], 0, 10);\nreturn printf(\"%ld\\n\", sum) < 0;\n}\n",
    );
    let makefile = "CFLAGS = -O2 -Wall -Werror\nall: sum\nsum: sum.o\n\t$(CC) -o $@ $^\n\
        check: sum\n\tfor n in 1 2 3 4 5 6 7 8; do test $$(./sum $$n $$n) = $$((n + n)) && echo PASS $$n || exit 1; done\n\
        hang:\n\techo begun; while :; do ./sum 1 >/dev/null; done\n";
    write(&tree.join("Makefile"), makefile);
    write(&tree.join(".gitignore"), "*.o\nsum\n");
}

#[test]
fn job_builds_and_tests_a_git_tree_on_a_volume_and_leaves_its_artefact_on_another() {
    let job = Job::new();
    small_package(&job.path("tree"));
    job.commit();
    let script = format!("{BUILD}; cp sum /out/; ./sum 40 2");
    let finished = job.run(&[], &script).expect_code(0);
    assert_eq!(finished.out(), "42\n", "{}", finished.err());
    let log = fs::read_to_string(job.path("out/log")).expect("the log");
    assert_eq!(
        log.lines().filter(|line| line.starts_with("PASS")).count(),
        8,
        "{log}"
    );
    // On the host the artefact runs as it is, and git sees what was built as what it is to ignore.
    let artefact = finish(Command::new(job.path("out/sum")).args(["1", "2"]));
    assert_eq!(artefact.expect_code(0).out(), "3\n");
    assert_eq!(job.git(&["status", "--porcelain"]), "");
    assert_eq!(
        job.git(&["status", "--porcelain", "--ignored"]),
        "!! sum\n!! sum.o\n"
    );
    // A change on the host is built, and one that breaks the build fails the job.
    let source = fs::read_to_string(job.path("tree/sum.c")).expect("the source");
    write(&job.path("tree/sum.c"), &source.replace("sum +=", "sum -="));
    let failed = job.run(&[], &script).expect_code(1);
    assert!(failed.out().contains("check"), "{}", failed.out());
    assert_eq!(job.git(&["status", "--porcelain"]), " M sum.c\n");
}

#[test]
fn job_that_does_not_end_is_ended_with_what_it_wrote_kept() {
    let job = Job::new();
    small_package(&job.path("tree"));
    job.run(&[], "make").expect_code(0);
    // Long enough for any host to get there.
    let finished = job.run(&["--timeout=40s"], "make hang >/out/log 2>&1");
    let finished = finished.expect_code(124);
    assert!(finished.err().contains("time is up"), "{}", finished.err());
    let log = fs::read_to_string(job.path("out/log")).expect("the log");
    assert!(log.contains("begun"), "{log}");
}

/// Builds what Debian has the source of, with its own tests, which say `passed`; gives the program, which it leaves at `built`.
fn debian_package(name: &str, built: &str, passed: &str) -> (Job, PathBuf) {
    let job = Job::new();
    // Not at the top of the git tree: there a package's maintainers build, with more tools than its users.
    let unpack = format!("tar xf /usr/src/{name}_*.orig.tar.?z; mv {name}-* {name}");
    job.run(&[], &unpack).expect_code(0);
    job.commit();
    let script = format!(
        "cd {name}; FORCE_UNSAFE_CONFIGURE=1 ./configure >/out/configured; {BUILD}; cp {built} /out/"
    );
    job.run(&["--cpus=1"], &script).expect_code(0);
    let log = fs::read_to_string(job.path("out/log")).expect("the log");
    assert!(log.lines().any(|line| line.starts_with(passed)), "{log}");
    let program = job.path("out").join(name);
    (job, program)
}

#[test]
fn job_builds_and_tests_a_small_debian_source_package() {
    for _ in 0..rounds("small Debian source packages built on a volume", 0, 1) {
        let (job, ed) = debian_package("ed", "ed", "tests completed successfully");
        let text = job.path("out/text");
        write(&text, "from the host\n");
        let mut edited = Command::new("sh");
        edited
            .arg("-c")
            .arg("printf 's/from/on/\nwq\n' | \"$0\" -s \"$1\"");
        finish(edited.args([ed, text.clone()])).expect_code(0);
        let text = fs::read_to_string(text).expect("the text");
        assert_eq!(text, "on the host\n");
    }
}

#[test]
fn job_builds_and_tests_a_larger_debian_source_package() {
    for _ in 0..rounds("larger Debian source packages built on a volume", 0, 1) {
        let (job, patch) = debian_package("patch", "src/patch", "# FAIL:  0");
        let text = job.path("out/text");
        write(&text, "from the host\n");
        let change = "--- text\n+++ text\n@@ -1 +1 @@\n-from the host\n+patched\n";
        let mut patched = Command::new(patch);
        patched.arg("--directory").arg(job.path("out"));
        finish_with(&mut patched, Some(change.into())).expect_code(0);
        let text = fs::read_to_string(text).expect("the text");
        assert_eq!(text, "patched\n");
    }
}
