//! Pulls that are many, large, killed, or run out of room.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::recorder::{Host, RECORD, until};
use crate::registries::pull;
use crate::registry::{Guard, Layout, Registry};

#[test]
fn fifty_pulls_at_once_fetch_each_layer_once() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    let shared: Vec<_> = (0..3u8).map(|seed| vec![seed; 1 << 20]).collect();
    for index in 0..10 {
        let layout = Layout::new(host.path(&format!("layout-{index}")));
        let own = format!("image {index}");
        let files = [
            ("a", &*shared[0]),
            ("b", &shared[1]),
            ("c", &shared[2]),
            ("d", own.as_bytes()),
        ];
        let image = layout.image("amd64", &files);
        registry.push(&layout.of(&image), &format!("image-{index}"));
    }
    let children: Vec<_> = (0..50)
        .map(|index| {
            let name = registry.name(&format!("image-{}", index % 10));
            let mut command = host.command(&["image", "pull", "-q", &name]);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("fairing starts")
        })
        .collect();
    let ids: Vec<_> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().expect("its end");
            assert!(output.status.success(), "{output:?}");
            output.stdout
        })
        .collect();
    assert!((10..50).all(|index| ids[index] == ids[index % 10]));
    let blobs = registry.blobs_asked_for();
    assert_eq!(
        blobs.len(),
        10 + 10 + 3,
        "configurations, own layers, shared ones: {blobs:?}"
    );
    assert!(blobs.values().all(|count| *count == 1), "{blobs:?}");
}

#[test]
fn layer_that_the_store_has_is_not_fetched_again_and_its_blob_not_kept() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    let shared = noise(1, 1 << 20);
    for own in ["one", "two"] {
        let layout = Layout::new(host.path(own));
        let image = layout.image("amd64", &[("shared", &*shared), ("own", own.as_bytes())]);
        registry.push(&layout.of(&image), own);
        pull(&host, &registry.name(own));
    }
    let asked = registry.blobs_asked_for();
    assert_eq!(
        asked.len(),
        2 + 2 + 1,
        "configurations, own layers, the shared one: {asked:?}"
    );
    assert!(asked.values().all(|count| *count == 1), "{asked:?}");
    let kept: u64 = blobs(&host)
        .iter()
        .map(|blob| blob.metadata().expect("a blob").len())
        .sum();
    assert!(
        kept < 64 << 10,
        "{kept} bytes are kept of what is a layer of the store"
    );
}

/// So many bytes that do not compress, others for each seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

/// Files of the store's folder `blobs`.
fn blobs(host: &Host) -> Vec<PathBuf> {
    let entries = fs::read_dir(host.path("data/store/blobs/sha256"));
    entries.map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().map(|entry| entry.path()).collect(),
    )
}

fn is_part(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "part")
}

#[test]
fn large_image_is_pulled_in_little_memory() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    let layers = [1, 2, 3, 4, 5].map(|seed| noise(seed, 20 << 20));
    let layout = Layout::new(host.path("layout"));
    let files: Vec<_> = layers.iter().map(|layer| ("a", &layer[..])).collect();
    let image = layout.image("amd64", &files);
    registry.push(&layout.of(&image), "large");
    let fairing = host.command(&["image", "pull", &registry.name("large")]);
    // All that is written to counts, the stacks of all threads included.
    let output = Command::new("prlimit")
        .arg(format!("--data={}", 64 << 20))
        .arg(fairing.get_program())
        .args(fairing.get_args())
        .output()
        .expect("prlimit starts");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn pull_that_is_killed_is_gone_on_with_by_the_next() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    let layout = Layout::new(host.path("layout"));
    let image = layout.image("amd64", &[("a", &noise(1, 32 << 20))]);
    registry.push(&layout.of(&image), "large");
    let name = registry.name("large");
    // A pull may be done before it is killed: then another store begins anew.
    let left_a_part = (0..50).any(|_| {
        fs::remove_dir_all(host.path("data")).ok();
        let mut command = host.command(&["image", "pull", &name]);
        let mut child = command
            .stdout(Stdio::null())
            .spawn()
            .expect("fairing starts");
        until("a part of the layer is there, or the pull done", || {
            let parts = blobs(&host).into_iter().filter(|path| is_part(path));
            let mut sizes = parts.filter_map(|part| Some(part.metadata().ok()?.len()));
            sizes.any(|size| size > 0)
                || blobs(&host).iter().filter(|path| !is_part(path)).count() == 2
        });
        child.kill().expect("a signal");
        child.wait().expect("its end");
        blobs(&host).iter().any(|path| is_part(path))
    });
    assert!(left_a_part);
    assert_eq!(host.stdout(&["image", "list", "--format=json"]), "[]\n");
    pull(&host, &name);
    assert!(!blobs(&host).iter().any(|path| is_part(path)));
    let tmp = fs::read_dir(host.path("data/store/tmp")).expect("a folder");
    assert_eq!(tmp.count(), 0);
}

#[test]
fn pull_onto_a_full_disk_leaves_nothing() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    let layout = Layout::new(host.path("layout"));
    let image = layout.image("amd64", &[("a", &noise(1, 16 << 20))]);
    registry.push(&layout.of(&image), "large");
    let fairing = host.command(&["image", "pull", &registry.name("large")]);
    let script = r#"mkdir -p "$1" && mount -t tmpfs -o size=8M none "$1" || exit 99
        shift; "$@"; echo "code=$?"; find "$DATA/store" -size +8k"#;
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(host.path("data"))
        .env("DATA", host.path("data"))
        .arg(fairing.get_program())
        .args(fairing.get_args())
        .output()
        .expect("unshare starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("No space left on device"), "{text}");
    assert_eq!(output.stdout, b"code=254\n");
}
