//! A terminal in the guest, under script(1) as the user's terminal.

use std::process::Command;

use tests::{checkout, finish, store, test_image};

#[test]
fn terminal_in_the_guest_has_the_users_size_and_is_given_back() {
    let inner = "tty; stty size; echo $TERM; grep -c virtio_mmio.device /proc/cmdline; exit 5";
    let run = format!(
        "stty rows 33 cols 99; {} --dir {} run -i -t {} -- /bin/sh -c '{inner}'; echo code $?; stty -a",
        checkout().join("target/fairing").display(),
        store().display(),
        test_image("busybox").display(),
    );
    let finished = finish(Command::new("script").args(["-q", "-e", "-c", &run, "/dev/null"]));
    let out = finished.out().replace('\r', "");
    assert!(
        out.contains("/dev/pts/0\n33 99\nxterm\n1\ncode 5\n"),
        "{out}\n{}",
        finished.err()
    );
    // Raw mode is over: line editing and echo are on again.
    let modes = out.split("code 5").nth(1).unwrap_or_default();
    assert!(
        modes.contains(" icanon") && modes.contains(" echo "),
        "{out}"
    );
}
