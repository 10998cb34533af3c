//! Images of every kind, made by Debian's own tools, as the app in them sees them.

use tests::{fairing, finish, test_image};

#[test]
fn layers_with_whiteouts_come_out_merged() {
    let script = "cat /data/kept; ls /data; ls /opaque; readlink /linked; grep -c virtio_mmio.device /proc/cmdline";
    let image = test_image("layers");
    let entrypoint = ["--entrypoint", "/bin/sh"];
    let command = ["--", "-c", script];
    let finished = finish(
        fairing()
            .arg("run")
            .args(entrypoint)
            .arg(&image)
            .args(command),
    )
    .expect_code(0);
    assert_eq!(finished.out(), "lower\nkept\nnew\nreal\n1\n");
    // Without arguments Entrypoint and Cmd apply; arguments replace Cmd and follow Entrypoint.
    assert_eq!(
        finish(fairing().arg("run").arg(&image))
            .expect_code(0)
            .out(),
        "lower\n"
    );
    let finished =
        finish(fairing().arg("run").arg(&image).args(["--", "/opaque/new"])).expect_code(0);
    assert_eq!(finished.out(), "upper\n");
}

#[test]
fn aci_runs_its_exec_with_arguments_appended() {
    let image = test_image("busybox.aci");
    let finished = finish(fairing().arg("run").arg(&image).args(["--", "more"])).expect_code(0);
    assert_eq!(finished.out(), "from-the-aci more\n");
    let script = "id -u; pwd; echo $FLAVOUR; grep -c virtio_mmio.device /proc/cmdline";
    let finished = finish(
        fairing()
            .arg("run")
            .arg(&image)
            .args(["--exec", "/bin/sh", "--", "-c", script]),
    );
    assert_eq!(finished.expect_code(0).out(), "1000\n/tmp\naci\n1\n");
}

#[test]
fn debian_runs_and_keeps_its_writes_off_the_image() {
    let image = test_image("debian.tar");
    finish(fairing().args(["image", "import"]).arg(&image)).expect_code(0);
    let list = finish(fairing().args(["image", "list", "--format=json"]))
        .expect_code(0)
        .out();
    assert!(list.contains("debian"), "{list}");
    let before = files_sha256(".erofs");
    let script = "grep -c virtio_mmio.device /proc/cmdline; . /etc/os-release; echo $VERSION_CODENAME; \
                  cp -a /usr/share /copy && sync && diff -r /usr/share /copy && echo same; \
                  rm -rf /usr/share/doc && test ! -e /usr/share/doc && dpkg --audit && echo clean";
    let finished = finish(
        fairing()
            .args(["run", "--rm"])
            .arg(&image)
            .args(["--", "/bin/sh", "-c", script]),
    );
    assert_eq!(finished.expect_code(0).out(), "1\nbookworm\nsame\nclean\n");
    assert_eq!(
        files_sha256(".erofs"),
        before,
        "an image file was changed by a pod"
    );
}

/// SHA-256 of every image file of the store.
fn files_sha256(suffix: &str) -> String {
    let find = format!(
        "find {} -name '*{suffix}' -path '*images*' | sort | xargs sha256sum",
        tests::store().display()
    );
    let finished = finish(std::process::Command::new("sh").args(["-c", &find])).expect_code(0);
    assert!(!finished.stdout.is_empty(), "no image file in the store");
    finished.out()
}
