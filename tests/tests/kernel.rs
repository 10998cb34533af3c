//! The guest kernel carries what real userlands need: every feature is tried in a pod.

use std::fs;
use std::path::Path;

use tests::{fairing, finish};

#[test]
fn kernel_features_all_work_in_a_pod() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["proc", "sys", "dev", "tmp", "etc"] {
        fs::create_dir(folder.path().join(name)).expect("a folder of the image");
    }
    fs::copy(
        env!("CARGO_BIN_EXE_kernel_features"),
        folder.path().join("kernel_features"),
    )
    .expect("the program is built");
    let mut command = fairing();
    command
        .args(["--insecure-options=all-run", "run", "--rm"])
        .arg(Path::new(folder.path()));
    let finished = finish(command.args(["--", "/kernel_features"]));
    print!("{}", finished.out());
    assert!(
        !finished.out().contains("FAIL"),
        "{}\n{}",
        finished.out(),
        finished.err()
    );
    assert!(
        finished
            .out()
            .lines()
            .filter(|line| line.starts_with("ok "))
            .count()
            > 50,
        "{}",
        finished.out()
    );
    finished.expect_code(0);
}
