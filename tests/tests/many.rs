//! Pods beside each other.

use std::process::Stdio;

use tests::{run_sh, wait};

#[test]
fn pods_at_once_do_not_disturb_each_other() {
    let pods = 8;
    let children: Vec<_> = (0..pods)
        .map(|pod| {
            let script = format!("echo {pod} >/mine; sleep 2; cat /mine; exit {pod}");
            let mut command = run_sh(&["--memory=64Mi"], &script);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("fairing starts")
        })
        .collect();
    for (pod, child) in children.into_iter().enumerate() {
        let finished = wait(child).expect_code(i32::try_from(pod).expect("a small number"));
        assert_eq!(finished.out(), format!("{pod}\n"));
    }
}
