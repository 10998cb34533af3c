//! Imports: the same bytes every time, nothing left of one that failed, little memory whatever the image holds.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::resource::{UsageWho, getrusage};
use tests::{check_image, fairing_in, finish, image_files, rounds, tell, temporary, test_image};

#[test]
fn same_image_gives_the_same_file_in_every_store() {
    let images = ["giant.docker", "busybox.aci", "rootfs", "odd", "layers"];
    for name in &images[..rounds("images imported twice", 2, images.len())] {
        let folder = temporary("fairing-imports-");
        let files = ["one", "two"].map(|store| {
            let store = folder.path().join(store);
            finish(
                fairing_in(&store)
                    .args(["image", "import"])
                    .arg(test_image(name)),
            )
            .expect_code(0);
            image_files(&store)
        });
        for (one, other) in files[0].iter().zip(&files[1]) {
            finish(Command::new("cmp").args([one, other])).expect_code(0);
        }
        assert_eq!(files[0].len(), files[1].len());
    }
}

#[test]
fn sparse_file_of_10_gib_costs_less_than_a_mebibyte() {
    let folder = temporary("fairing-imports-");
    let [without, with] = ["odd", "giant.docker"].map(|name| {
        let store = folder.path().join(name);
        finish(
            fairing_in(&store)
                .args(["image", "import"])
                .arg(test_image(name)),
        )
        .expect_code(0);
        let blocks = |file: &std::path::PathBuf| file.metadata().expect("an image file").blocks();
        image_files(&store).iter().map(blocks).sum::<u64>() * 512
    });
    tell(&format!("{} bytes", with - without));
    assert!(
        with > without && with - without < 1 << 20,
        "{without} and {with} bytes"
    );
}

/// Every file and folder of a store, but for rubbish-proof times.
fn listing(store: &Path) -> String {
    finish(
        Command::new("find")
            .arg(store)
            .args(["-printf", "%P %y %s\\n"]),
    )
    .expect_code(0)
    .out()
}

#[test]
fn import_onto_a_full_disk_says_so_and_leaves_nothing() {
    let folder = temporary("fairing-imports-");
    let mount = ["-t", "tmpfs", "-o", "size=24m", "tmpfs"];
    finish(Command::new("mount").args(mount).arg(folder.path())).expect_code(0);
    let store = folder.path().join("store");
    finish(fairing_in(&store).args(["image", "list"])).expect_code(0);
    let before = listing(&store);
    let import = finish(
        fairing_in(&store)
            .args(["image", "import"])
            .arg(test_image("debian.tar")),
    );
    let after = listing(&store);
    // What fits is imported all the same.
    let next = finish(
        fairing_in(&store)
            .args(["image", "import"])
            .arg(test_image("busybox")),
    );
    finish(Command::new("umount").arg(folder.path())).expect_code(0);
    let error = import.expect_code(254).err();
    assert!(
        error.contains("No space left") && error.contains("debian.tar"),
        "{error}"
    );
    assert_eq!(after, before);
    next.expect_code(0);
}

/// Writes a tar of `files` empty files in folders of a thousand to `path`, compressed.
fn write_tar(path: &Path, files: usize) {
    let output = std::fs::File::create(path).expect("a file");
    let mut gzip = Command::new("gzip")
        .arg("-1")
        .stdin(Stdio::piped())
        .stdout(output)
        .spawn()
        .expect("gzip starts");
    let pipe = gzip.stdin.take().expect("a pipe");
    let mut builder = tar::Builder::new(std::io::BufWriter::new(pipe));
    for number in 0..files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        let name = format!(
            "srv/{:04}/a-name-of-ordinary-length-{number}",
            number / 1000
        );
        builder
            .append_data(&mut header, name, std::io::empty())
            .expect("gzip reads");
    }
    builder
        .into_inner()
        .and_then(|mut pipe| pipe.flush())
        .expect("gzip reads");
    assert!(gzip.wait().expect("gzip ends").success());
}

#[test]
fn import_of_very_many_files_takes_little_memory() {
    let files = rounds("files in one image", 50_000, 1_000_000);
    let folder = temporary("fairing-imports-");
    let tar = folder.path().join("many.tar.gz");
    write_tar(&tar, files);
    let store = folder.path().join("store");
    let mut import = fairing_in(&store);
    import
        .args(["image", "import"])
        .arg(&tar)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let deadline = std::time::Duration::from_secs(1800);
    tests::wait_for(import.spawn().expect("fairing starts"), deadline).expect_code(0);
    // The largest of all that this program has started.
    let peak_kib = getrusage(UsageWho::RUSAGE_CHILDREN)
        .expect("resource usage")
        .max_rss();
    tell(&format!("{files} files: {peak_kib} KiB"));
    // 12 MiB whatever the image, and 52 bytes a file.
    let bound_kib = 12 * 1024 + i64::try_from(files * 52 / 1024).expect("a small number");
    assert!(
        peak_kib < bound_kib,
        "{peak_kib} KiB, at most {bound_kib} are allowed"
    );
    check_image(&store);
}
