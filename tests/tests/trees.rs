//! Image files beside the trees that umoci unpacks from the same images: the same to the last attribute.

use std::process::Command;
use std::time::Duration;

use tests::mounted::Mounted;
use tests::{fairing_in, finish, finish_within, rounds, tell, temporary, test_image};

/// How long an emulated CPU may take over a whole Debian.
const UNPACKING: Duration = Duration::from_secs(1800);

#[test]
fn image_files_hold_the_trees_that_umoci_unpacks() {
    // Where an opaque folder's or a whiteout's parent is not in the layer, its time is the unpacker's own.
    let images: [(&str, &[&str], usize); 3] = [
        ("layers", &[], 250),
        ("odd", &[], 3000),
        ("debian", &[], 6000),
    ];
    for (name, timeless, least) in &images[..rounds("trees", 2, 3)] {
        let folder = temporary("fairing-trees-");
        let store = folder.path().join("store");
        let image = test_image(name);
        finish(fairing_in(&store).args(["image", "import"]).arg(&image)).expect_code(0);
        tests::check_image(&store);
        let mounted = Mounted::image(&store, folder.path().join("ours"));
        let disk = Mounted::ext4(folder.path(), "theirs");
        let bundle = disk.path().join("bundle");
        let tagged = format!("{}:latest", image.display());
        let mut unpack = Command::new("umoci");
        unpack.args(["unpack", "--image", &tagged]).arg(&bundle);
        finish_within(UNPACKING, &mut unpack).expect_code(0);
        let mut compare = Command::new(env!("CARGO_BIN_EXE_compare_trees"));
        compare
            .arg(mounted.path())
            .arg(bundle.join("rootfs"))
            .arg("--ignore-time-of")
            .args(*timeless);
        let compared = finish_within(UNPACKING, &mut compare);
        let told: String = compared.out().chars().take(2000).collect();
        tell(&format!("{name}: {told}"));
        assert_eq!(compared.code, 0, "{told}");
        let entries = told
            .lines()
            .last()
            .and_then(|line| line.split(' ').next()?.parse().ok());
        assert!(
            entries.is_some_and(|entries: usize| entries > *least),
            "{told}"
        );
    }
}
