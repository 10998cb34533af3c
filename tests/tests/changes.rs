//! Shared folders that the host changes while an app reads them: what `cache=` makes of it, trees that are swapped by a rename as
//! Kubernetes swaps configuration, and what inotify tells.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tests::running::Running;
use tests::{rounds, run_sh, temporary};

/// A tree as the kubelet keeps one: its files are links through `..data`, which a rename lets lead to another folder.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(temporary("fairing-changes-"));
        for name in ["word", "many"] {
            symlink(format!("..data/{name}"), tree.path(name)).expect("a link");
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a version in place of the one before, which stays beside it.
    fn swap(&self, version: usize) {
        let folder = format!("..{version}");
        fs::create_dir(self.path(&folder)).expect("a folder");
        let write = |name: &str, text: &str| {
            fs::write(self.path(&folder).join(name), text).expect("a file");
        };
        write("word", &version.to_string());
        write("many", &format!("{version}\n").repeat(10_000));
        symlink(&folder, self.path("..data_tmp")).expect("a link");
        fs::rename(self.path("..data_tmp"), self.path("..data")).expect("the rename");
    }

    fn remove(&self, version: usize) {
        fs::remove_dir_all(self.path(&format!("..{version}"))).expect("an old version");
    }
}

/// An app that reads what it is asked to, in a pod with `folder` at /auto, /always and /none.
struct Reader(Running);

impl Reader {
    fn start(folder: &Path) -> Self {
        let program = temporary("fairing-reader-");
        fs::copy(
            env!("CARGO_BIN_EXE_tree_reader"),
            program.path().join("reader"),
        )
        .expect("the program is built");
        let mut options = vec!["-i".to_owned(), "--rm".to_owned()];
        options.push(format!("-v={}:/program:ro", program.path().display()));
        for cache in ["auto", "always", "none"] {
            options.push(format!("-v={}:/{cache}:cache={cache}", folder.display()));
        }
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let script = "cp /program/reader /tmp/reader && echo copied && exec /tmp/reader";
        let mut reader = Self(Running::with_stdin(&mut run_sh(&options, script)));
        assert_eq!(reader.0.line(), "copied");
        reader
    }

    #[track_caller]
    fn ask(&mut self, what: &str) -> String {
        self.0.write(&format!("{what}\n"));
        self.0.line()
    }

    #[track_caller]
    fn end(self) {
        self.0.finish().expect_code(0);
    }
}

#[test]
fn what_the_host_changes_is_seen_at_once_with_cache_none_and_never_with_always() {
    let tree = Tree::new();
    tree.swap(1);
    let plain = tree.path("plain");
    fs::write(&plain, "old").expect("a file");
    fs::create_dir_all(tree.path("folder/inner")).expect("folders");
    let mut reader = Reader::start(tree.0.path());
    // What is read the first time has another access time, for which the second asks.
    for cache in ["auto", "always", "none"].repeat(2) {
        for (what, seen) in [
            ("read word", "1"),
            ("read plain", "old"),
            ("list folder", "inner"),
        ] {
            let what = what.replace(' ', &format!(" /{cache}/"));
            assert_eq!(reader.ask(&what), seen, "{what}");
        }
    }
    for cache in ["always", "none"] {
        let answer = reader.ask(&format!("read /{cache}/later"));
        assert!(answer.contains("No such file"), "{cache}: {answer}");
    }
    assert_eq!(reader.ask("keep /none/plain"), "kept");
    assert_eq!(reader.ask("map /none/plain"), "o");

    // In place, so that neither the inode nor the size tells.
    fs::write(&plain, "new").expect("a file");
    fs::write(tree.path("later"), "late").expect("a file");
    fs::write(tree.path("folder/more"), "").expect("a file");
    tree.swap(2);
    tree.remove(1);
    assert_eq!(reader.ask("again"), "new");
    assert_eq!(reader.ask("map /none/plain"), "n");
    for (what, none, always) in [("plain", "new", "old"), ("word", "2", "1")] {
        assert_eq!(reader.ask(&format!("read /none/{what}")), none);
        assert_eq!(reader.ask(&format!("read /always/{what}")), always);
    }
    assert_eq!(reader.ask("read /none/later"), "late");
    assert!(reader.ask("read /always/later").contains("No such file"));
    assert_eq!(reader.ask("list /none/folder"), "inner more");
    assert_eq!(reader.ask("list /always/folder"), "inner");
    // What the pod itself makes it sees at once, though it has looked in vain before.
    let made = ["read", "write", "read"].map(|what| reader.ask(&format!("{what} /always/made")));
    assert!(made[0].contains("No such file"), "{made:?}");
    assert_eq!(made[1..], ["written", "by the pod"]);
    // Whoever opens a file anew sees its new content, even where its attributes are trusted for a second.
    assert_eq!(reader.ask("read /auto/plain"), "new");
    reader.end();
}

#[test]
fn tree_swapped_again_and_again_is_read_whole_and_in_order_with_cache_none() {
    // Whoever resolved the one before the last has read it since.
    swap_under_a_reader("follow", 2);
}

#[test]
fn tree_whose_old_version_goes_at_once_is_read_whole_and_in_order_by_who_tries_again() {
    swap_under_a_reader("chase", 1);
}

/// Swaps while an app does what `deed` says, and removes the version that is `kept` versions old.
#[track_caller]
fn swap_under_a_reader(deed: &str, kept: usize) {
    let tree = Tree::new();
    tree.swap(1);
    let mut reader = Reader::start(tree.0.path());
    let last = rounds("swaps", 20, 1000);
    reader.0.write(&format!("{deed} /none {last}\n"));
    for version in 2..last + 2 {
        let line = reader.0.line();
        assert!(line.starts_with("at "), "after swap {version}: {line}");
        tree.swap(version);
        if version > kept {
            tree.remove(version - kept);
        }
    }
    assert_eq!(reader.0.line(), "followed");
    let version = (last + 1).to_string();
    assert_eq!(reader.ask("read /none/word"), version);
    reader.end();
}

#[test]
fn inotify_tells_what_the_pod_does_and_not_what_the_host_does() {
    let tree = Tree::new();
    tree.swap(1);
    let mut reader = Reader::start(tree.0.path());
    assert_eq!(reader.ask("watch /none"), "watched");
    assert_eq!(reader.ask("watch /none/word"), "watched");
    fs::write(tree.path("of-the-host"), "x").expect("a file");
    tree.swap(2);
    assert_eq!(reader.ask("read /none/of-the-host"), "x");
    assert_eq!(reader.ask("read /none/word"), "2");
    assert_eq!(reader.ask("events"), "");
    assert_eq!(reader.ask("write /none/of-the-pod"), "written");
    assert_eq!(reader.ask("events"), "of-the-pod");
    reader.end();
}
