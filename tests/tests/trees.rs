//! Image files beside the trees that umoci unpacks from the same images: the same to the last attribute.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tests::mounted::Mounted;
use tests::{fairing_in, finish_within, rounds, tell, temporary, test_image};

/// How long an emulated CPU may take over a whole Debian and what lies above it.
const UNPACKING: Duration = Duration::from_secs(3600);

/// An image by its layout and tag, and how many entries it has at least.
struct Tree {
    layout: PathBuf,
    tag: &'static str,
    least: usize,
    /// Its folder is one where there is room for what is large, but not for all attributes.
    is_large: bool,
}

impl Tree {
    fn of(image: &str, least: usize) -> Self {
        Self {
            layout: test_image(image),
            tag: "latest",
            least,
            is_large: false,
        }
    }

    /// Debian, PostgreSQL, Node and a JVM in four layers.
    fn stack() -> Self {
        let stack = std::env::var_os("FAIRING_TEST_STACK");
        Self {
            layout: stack.expect("run scripts/system-tests").into(),
            tag: "jdk",
            least: 15_000,
            is_large: true,
        }
    }
}

#[test]
fn image_files_hold_the_trees_that_umoci_unpacks() {
    let mut trees = vec![Tree::of("layers", 250), Tree::of("odd", 3000)];
    for _ in 0..rounds("trees of a whole Debian and of what lies above it", 0, 1) {
        trees.extend([Tree::of("debian", 6000), Tree::stack()]);
    }
    for tree in trees {
        compare(&tree);
    }
}

fn compare(tree: &Tree) {
    let folder = match tree.is_large {
        true => tempfile::tempdir().expect("a temporary folder"),
        false => temporary("fairing-trees-"),
    };
    let store = folder.path().join("store");
    let mut import = fairing_in(&store);
    import.args(["image", "import", "--name", tree.tag]);
    finish_within(UNPACKING, import.arg(&tree.layout)).expect_code(0);
    tests::check_image(&store);
    let mounted = Mounted::image(&store, folder.path().join("ours"));
    let disk = Mounted::ext4_of(folder.path(), "theirs", 4 << 30);
    let bundle = disk.path().join("bundle");
    let tagged = format!("{}:{}", tree.layout.display(), tree.tag);
    let mut unpack = Command::new("umoci");
    unpack.args(["unpack", "--image", &tagged]).arg(&bundle);
    finish_within(UNPACKING, &mut unpack).expect_code(0);
    let mut compare = Command::new(env!("CARGO_BIN_EXE_compare_trees"));
    compare.arg(mounted.path()).arg(bundle.join("rootfs"));
    let compared = finish_within(UNPACKING, &mut compare);
    let told: String = compared.out().chars().take(2000).collect();
    tell(&format!("{tagged}: {told}"));
    assert_eq!(compared.code, 0, "{told}");
    let entries = told
        .lines()
        .last()
        .and_then(|line| line.split(' ').next()?.parse().ok());
    assert!(
        entries.is_some_and(|entries: usize| entries > tree.least),
        "{told}"
    );
}
