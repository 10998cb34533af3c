//! Images that stay, and images that go.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};

use crate::recorder::{Host, RECORD};

/// A store with one image, called `tool` and `also`, that no pod uses; and its id.
fn host() -> (Host, String) {
    let host = Host::new(RECORD);
    let image = host.path("image.tar");
    let image = image.to_str().expect("text");
    let id = host.stdout(&["image", "import", "--name=tool", image]);
    host.stdout(&["image", "tag", "tool", "also"]);
    (host, id.trim().to_owned())
}

fn names(host: &Host) -> String {
    let listed = host.stdout(&["image", "list", "--no-legend", "--fields=name"]);
    listed.trim().to_owned()
}

fn refused(host: &Host, words: &[&str]) -> String {
    let output = host.output(words);
    assert_eq!(output.status.code(), Some(254), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn names_come_and_go_and_the_image_with_the_last() {
    let (host, id) = host();
    assert_eq!(names(&host), "also,tool");
    refused(&host, &["image", "tag", "tool", "fine", "../bad"]);
    refused(&host, &["image", "untag", "tool", "also", "other"]);
    assert_eq!(names(&host), "also,tool");
    host.stdout(&["image", "rm", "also"]);
    assert_eq!(names(&host), "tool");
    host.stdout(&["image", "untag", "tool"]);
    host.stdout(&["image", "tag", &id[..20], "again"]);
    assert_eq!(host.stdout(&["image", "rm", "again"]).trim(), id);
    assert_eq!(names(&host), "");
}

#[test]
fn image_that_a_pod_uses_is_removed_only_by_force() {
    let (host, id) = host();
    host.pod("run", &[]).status().expect("fairing starts");
    let told = refused(&host, &["image", "rm", &id]);
    assert!(told.contains(&host.pods("run")[0]), "{told}");
    host.stdout(&["image", "gc", "--all", "--grace-period=0"]);
    assert!(names(&host).contains("tool"), "{}", names(&host));
    host.stdout(&["image", "rm", "--force", &id]);
    assert_eq!(names(&host), "");
}

#[test]
fn gc_takes_what_has_no_name_and_was_not_used_for_so_long() {
    let (host, id) = host();
    assert_eq!(host.stdout(&["image", "gc", "--grace-period=0"]), "");
    host.stdout(&["image", "untag", "tool"]);
    assert_eq!(host.stdout(&["image", "gc"]), "");
    assert_eq!(host.stdout(&["image", "gc", "--grace-period=0"]).trim(), id);
    let (host, id) = self::host();
    assert_eq!(
        host.stdout(&["image", "gc", "--all", "--grace-period=0"])
            .trim(),
        id
    );
}

#[test]
fn image_whose_file_changed_is_told() {
    let (host, id) = host();
    assert_eq!(host.stdout(&["image", "verify", "tool"]).trim(), id);
    let file = host
        .path("data/store/images")
        .join(&id)
        .join("rootfs.erofs");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("mode");
    let open = fs::File::options()
        .write(true)
        .open(&file)
        .expect("the file");
    open.write_all_at(b"!", 100).expect("a byte");
    let told = refused(&host, &["image", "verify", "tool"]);
    assert!(told.contains("damaged"), "{told}");
}

#[test]
fn space_of_an_image_that_a_pod_uses_is_not_to_be_reclaimed() {
    let (host, id) = host();
    let space = || -> serde_json::Value {
        let told = host.stdout(&["image", "df", "--format=json"]);
        serde_json::from_str(&told).expect("JSON")
    };
    let free = space();
    let size = &free[0]["size"];
    assert_eq!(
        (&free[0]["what"], &free[0]["reclaimable"]),
        (&id.clone().into(), size)
    );
    assert!(size.as_u64().expect("bytes") >= 4096, "{free}");
    host.pod("run", &[]).status().expect("fairing starts");
    let used = space();
    assert_eq!(
        (&used[0]["pods"], &used[0]["reclaimable"]),
        (&1.into(), &0.into())
    );
    host.stdout(&["image", "df"]);
}

#[test]
fn image_that_the_store_has_no_room_for_is_refused_and_others_stay() {
    let (host, _) = host();
    let large = host.path("large.tar");
    let mut tar = tar::Builder::new(fs::File::create(&large).expect("a file"));
    let mut header = tar::Header::new_gnu();
    header.set_size(4 << 20);
    let content = vec![7; 4 << 20];
    tar.append_data(&mut header, "large", &*content)
        .expect("room");
    tar.into_inner().expect("a tar");
    let import = [
        "image",
        "import",
        "--name=large",
        large.to_str().expect("text"),
    ];
    let told = refused(&host, &[&["--max-store-size=2Mi"], &import[..]].concat());
    assert!(
        told.contains("max-store-size") && told.contains("image df"),
        "{told}"
    );
    assert_eq!(names(&host), "also,tool");
    fs::create_dir(host.path("config")).expect("a folder");
    let config = host.path("config/config.toml");
    fs::write(&config, "max-store-size = \"2Mi\"\n").expect("a file");
    refused(&host, &import);
    fs::write(&config, "max-store-size = \"8Mi\"\n").expect("a file");
    host.stdout(&import);
}
