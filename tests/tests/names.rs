//! Where apps look names up, as the flags of `fairing` say it: files of the command line, of the host, of the image.

use std::fs;
use std::process::Command;

use tests::sandbox::Sandbox;
use tests::{fairing, finish, run_sh, temporary};

/// Prints both files.
const SHOW: &str = "cat /etc/resolv.conf /etc/hosts";

#[test]
fn names_on_the_command_line_are_what_every_app_looks_up() {
    let flags = [
        "--rm",
        "--hostname=box",
        "--dns=192.0.2.1",
        "--dns=2001:db8::1",
        "--dns-domain=example",
        "--dns-search=a.example",
        "--dns-opt=ndots:2",
        "--hosts-entry=192.0.2.9=other",
    ];
    let out = finish(&mut run_sh(&flags, SHOW)).expect_code(0).out();
    let lines: Vec<_> = out.lines().filter(|line| !line.is_empty()).collect();
    let expected = [
        "nameserver 192.0.2.1",
        "nameserver 2001:db8::1",
        "domain example",
        "search a.example",
        "options ndots:2",
        "127.0.0.1 localhost",
        "::1 localhost",
        "192.0.2.9 other",
        "127.0.0.1 box",
    ];
    assert_eq!(lines, expected, "{out}");
}

#[test]
fn names_of_the_host_are_copied_and_without_flags_the_image_has_its_own() {
    let folder = temporary("fairing-names-");
    for (name, text) in [
        ("resolv.conf", "nameserver 192.0.2.3\n"),
        ("hosts", "192.0.2.4 of-the-host\n"),
    ] {
        fs::write(folder.path().join(name), text).expect("a file of the host's");
    }
    // A host of this one command's own.
    let on_host = |flags: &[&str], script: &str| {
        let run = run_sh(flags, script);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg(
            "mount --bind \"$0/resolv.conf\" /etc/resolv.conf && mount --bind \"$0/hosts\" /etc/hosts && exec \"$@\"",
        );
        command.arg(folder.path());
        command.arg(run.get_program()).args(run.get_args());
        finish(&mut command).expect_code(0).out()
    };
    let of_host = on_host(
        &["--rm", "--dns=host", "--hosts-entry=host"],
        &format!("{SHOW}; echo gone >/etc/hosts"),
    );
    assert_eq!(of_host, "nameserver 192.0.2.3\n192.0.2.4 of-the-host\n");
    let kept = fs::read_to_string(folder.path().join("hosts")).expect("the host's file");
    assert_eq!(kept, "192.0.2.4 of-the-host\n");
    let of_image = on_host(&["--rm", "--dns=none", "--hostname=box"], SHOW);
    assert_eq!(
        of_image,
        "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 box\n"
    );
}

#[test]
fn app_that_comes_later_has_the_pods_names_and_the_pod_keeps_its_ports() {
    let pod = Sandbox::start(&["--dns=192.0.2.1", "--port=http:tcp:80::8080"]);
    pod.add("later", &[], SHOW).expect_code(0);
    assert!(pod.runs("later").contains("nameserver 192.0.2.1\n"));
    let mut manifest = fairing();
    let manifest = finish(manifest.args(["cat-manifest", pod.uuid()])).expect_code(0);
    assert!(
        manifest.out().contains("8080") && manifest.out().contains("podPort"),
        "{}",
        manifest.out()
    );
    let mut clashing = fairing();
    clashing.args([
        "app",
        "sandbox",
        "--port=a:tcp:80::80",
        "--port=b:tcp:81::80",
    ]);
    let refused = finish(&mut clashing).expect_code(254);
    assert!(
        refused.err().contains("both want port 80"),
        "{}",
        refused.err()
    );
    pod.end();
}
