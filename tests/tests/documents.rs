//! The documents name what is there.

use std::fs;

use tests::checkout;

#[test]
fn architecture_names_only_paths_that_exist() {
    let text = fs::read_to_string(checkout().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let is_path = |name: &&str| {
        let first = name.split('/').next().unwrap_or_default();
        let known = [
            "stage0",
            "stage1",
            "vmm",
            "guest-init",
            "archive",
            "cni",
            "netlink",
            "passt",
            "userns",
            "kernel-config",
            "tests",
            "scripts",
            "docs",
        ];
        known.contains(&first)
    };
    let paths: Vec<_> = text.split('`').skip(1).step_by(2).filter(is_path).collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        assert!(
            checkout().join(path).exists(),
            "ARCHITECTURE.md names {path}, which does not exist"
        );
    }
}
