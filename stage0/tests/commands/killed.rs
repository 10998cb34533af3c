//! Fetches that are killed at any moment: what is in the store is whole, the next one succeeds, and gc leaves nothing.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::fetching::Bench;
use crate::many_pulls::noise;
use crate::recorder::{Host, RECORD};
use crate::registry::{Guard, Layout, Registry};

/// How many are killed; with `FAIRING_LONG=1` more.
fn kills() -> u32 {
    let is_long = std::env::var("FAIRING_LONG").is_ok_and(|value| value == "1");
    if is_long { 300 } else { 20 }
}

/// A number for each call, others in each run.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seed = since.expect("a clock").subsec_nanos().into();
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, end: Duration) -> Duration {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1);
        let micros = u64::try_from(end.as_micros()).expect("a short time");
        Duration::from_micros((self.0 >> 33) % micros)
    }
}

fn ids(host: &Host) -> Vec<String> {
    let listed: Value =
        serde_json::from_str(&host.stdout(&["image", "list", "--format=json"])).expect("JSON");
    let images = listed.as_array().expect("images").iter();
    images
        .map(|image| image["id"].as_str().expect("an id").to_owned())
        .collect()
}

fn files(host: &Host, folder: &str) -> Vec<String> {
    let found = Command::new("find")
        .arg(host.path("data/store").join(folder))
        .args(["-mindepth", "1", "-type", "f"])
        .output();
    let found = String::from_utf8(found.expect("find starts").stdout).expect("text");
    found.lines().map(str::to_owned).collect()
}

/// Kills the command that `start` starts, which brings so many images into the store, again and again.
fn survive(host: &Host, start: &dyn Fn() -> Command, images: usize) {
    let spawn = || {
        let mut command = start();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("fairing starts")
    };
    let begun = Instant::now();
    assert!(spawn().wait().expect("its end").success());
    let whole = begun.elapsed();
    assert_eq!(ids(host).len(), images);
    let mut chance = Chance::new();
    let (mut killed, mut found) = (0, vec![0; images + 1]);
    for _ in 0..kills() {
        if ids(host).len() == images {
            fs::remove_dir_all(host.path("data")).expect("a store");
        }
        let mut child = spawn();
        thread::sleep(chance.below(whole));
        child.kill().expect("a signal");
        killed += u32::from(!child.wait().expect("its end").success());
        let there = ids(host);
        assert!(files(host, "tmp").is_empty(), "{:?}", files(host, "tmp"));
        found[there.len()] += 1;
        for id in there {
            host.stdout(&["image", "verify", &id]);
        }
    }
    println!("{killed} killed; how often there were none, one and more images: {found:?}");
    assert!(killed > 0, "all had ended before they were killed");
    assert!(spawn().wait().expect("its end").success());
    let there = ids(host);
    assert_eq!(there.len(), images);
    let words = there.iter().map(String::as_str);
    host.stdout(
        &["image", "verify"]
            .into_iter()
            .chain(words)
            .collect::<Vec<_>>(),
    );
    let gone = host.stdout(&["image", "gc", "--all", "--grace-period=0"]);
    assert_eq!(gone.lines().count(), images, "{gone}");
    for folder in ["images", "layers", "names", "tmp", "downloads", "blobs"] {
        assert!(
            files(host, folder).is_empty(),
            "{folder}: {:?}",
            files(host, folder)
        );
    }
}

#[test]
fn fetch_of_an_image_above_others_survives_kills() {
    let on = |name: &str| json!({"dependencies": [{"imageName": format!("example.com/{name}"), "labels": [{"name": "version", "value": "1"}]}]});
    let images = [
        ("app", on("middle")),
        ("middle", on("base")),
        ("base", json!({})),
    ];
    let (bench, _signer) = Bench::trusting(&images);
    let start = || bench.command(&["image", "pull", "example.com/app,version=1"]);
    survive(&bench.host, &start, 3);
}

#[test]
fn pull_from_a_registry_survives_kills() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    let layout = Layout::new(host.path("layout"));
    let layers = [1, 2, 3].map(|seed| noise(seed, 2 << 20));
    let layers: Vec<_> = layers.iter().map(|layer| ("a", &layer[..])).collect();
    let image = layout.image("amd64", &layers);
    registry.push(&layout.of(&image), "tool");
    let name = registry.name("tool");
    survive(&host, &|| host.command(&["image", "pull", &name]), 1);
}
