//! Images of every kind, made by Debian's own tools, as the app in them sees them.

use std::fs;

use tests::{fairing, finish, run_image, test_image};

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
fn image_of_every_form_runs() {
    let images = [
        "several",
        "zstd",
        "rootfs",
        "busybox.raw.aci",
        "busybox.bz2.aci",
        "busybox.xz.aci",
    ];
    for name in images {
        let app = &mut run_image(
            &test_image(name),
            &["--rm", "--memory=64Mi"],
            "echo from-$0 $FLAVOUR",
        );
        let finished = finish(app).expect_code(0);
        let flavour = if name.ends_with(".aci") { "aci" } else { "" };
        assert_eq!(
            finished.out().trim_end(),
            format!("from-/bin/sh {flavour}").trim_end(),
            "{name}"
        );
    }
}

#[test]
fn image_for_another_architecture_only_is_refused() {
    let refused = finish(fairing().arg("run").arg(test_image("foreign"))).expect_code(254);
    assert!(
        refused.err().contains("arm64") && refused.err().contains("amd64"),
        "{}",
        refused.err()
    );
}

/// What an app sees of the image `odd` and of itself; run by the image's own user.
const ODD: &str = r#"id -un; id -gn; id -G; echo $FROM_FILE; pwd
cd /odd; cat extra
stat -c '%n %a %u:%g %F' setuid setgid sticky owned fifo
stat -c '%n %a %t:%T' null disk; echo to-null >null; wc -c <null
stat -c '%n %h %s' first second; readlink far | wc -c
cat "$(printf '%0255d' 1)" "$(printf 'caf\351')" "$(printf 'two\nlines')" ./-dash 'a b '
ls many | wc -l; stat -c '%n %Y' 1960 2200
wc -c <holes; dd if=holes bs=1 skip=3145728 count=6 2>/dev/null; echo
ln -s /odd/capable /tmp/busybox; /tmp/busybox grep CapEff /proc/self/status
stat -c %s /giant/sparse; tail -c 4 /giant/sparse
for n in 1 2 3 4 5 6 7 8 9 10; do cd "$(printf '%0240d' 2)" || exit; done; cat deep"#;

const ODD_SEEN: &str = "worker\nworker\n1000 2000\nfrom the file\n/root\nextra\n\
    setuid 4755 0:0 regular file\nsetgid 2755 0:2000 regular file\nsticky 1777 0:0 directory\n\
    owned 640 4000000000:1234 regular file\nfifo 644 0:0 fifo\n\
    null 666 1:3\ndisk 644 103:11170\n0\n\
    first 2 4\nsecond 2 4\n4001\n\
    long\nlatin\nline\ndash\nspace\n\
    3000\n1960 -315521755\n2200 7258215845\n\
    5242880\nmiddle\n\
    CapEff:\t0000000000002000\n\
    10737418244\nend\n\
    deep\n";

#[test]
fn odd_files_are_in_the_pod_as_the_image_has_them() {
    let folder = tests::temporary("fairing-images-");
    let variables = folder.path().join("variables");
    fs::write(&variables, "# a comment\nFROM_FILE=from the file\n").expect("a file");
    let variables = variables.to_str().expect("a UTF-8 path");
    let options = ["--rm", "--env-file", variables];
    let finished =
        finish(&mut run_image(&test_image("giant.docker"), &options, ODD)).expect_code(0);
    assert_eq!(finished.out(), ODD_SEEN, "{}", finished.err());
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
                  cp -a /usr/share/perl5 /copy && sync && diff -r /usr/share/perl5 /copy && echo same; \
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
    // The image as the commands about images see it.
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let listed = list.as_array().expect("images").iter();
    let is_debian = |image: &&serde_json::Value| image["names"][0] == "debian";
    let debian = listed.clone().find(is_debian).expect("the image");
    let id = debian["id"].as_str().expect("an id");
    let inspect = |name: &str| {
        let inspect = ["image", "inspect", "--format=json", name];
        finish(fairing().args(inspect)).expect_code(0).out()
    };
    assert_eq!(inspect("debian"), inspect(&id[..20]));
    assert!(
        inspect(id).contains("\"kind\":\"rootfs\""),
        "{}",
        inspect(id)
    );
    finish(fairing().args(["image", "rm", "debian"])).expect_code(0);
    assert_ne!(
        finish(fairing().args(["image", "inspect", id])).code,
        0,
        "a removed image is still there"
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
