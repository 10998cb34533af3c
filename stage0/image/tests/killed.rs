//! Imports killed at random points, in a process of their own: this program runs itself again as the victim.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use image::{ImportOptions, Store};

/// Tells the second run of this program which store to import into.
const STORE: &str = "FAIRING_TEST_STORE";
/// What to import.
const SOURCE: &str = "FAIRING_TEST_SOURCE";

const KILLS: u32 = 24;

/// A root file system of 256 files with 32 KiB each: long enough an import to be killed in the middle.
fn write_source(path: &Path) {
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    let mut content = vec![0u8; 32 * 1024];
    for number in 0..256u32 {
        for (at, byte) in content.iter_mut().enumerate() {
            *byte = u8::try_from(((at as u64 * u64::from(number + 7)) >> 3) & 0xff).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let name = format!("usr/share/{number}");
        builder
            .append_data(&mut header, name, &content[..])
            .unwrap();
    }
    builder.finish().unwrap();
}

fn start(store: &Path, source: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "victim_imports_when_told"])
        .env(STORE, store)
        .env(SOURCE, source)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn import(store: &Path, source: &Path) -> image::Image {
    let store = Store::open(store).unwrap();
    store
        .import(source, &ImportOptions::default(), &|_| {})
        .unwrap()
}

#[test]
fn victim_imports_when_told() {
    if let (Some(store), Some(source)) = (env::var_os(STORE), env::var_os(SOURCE)) {
        import(store.as_ref(), source.as_ref());
    }
}

#[test]
fn import_killed_anywhere_leaves_a_store_that_the_next_one_cleans() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, source) = (folder.path().join("store"), folder.path().join("source"));
    write_source(&source);
    let begin = Instant::now();
    assert!(
        start(&folder.path().join("whole"), &source)
            .wait()
            .unwrap()
            .success()
    );
    let whole_us = u64::try_from(begin.elapsed().as_micros()).unwrap();
    let expected = import(&folder.path().join("whole"), &source);
    let bytes = fs::read(&expected.rootfs).unwrap();
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let seed = u64::from(since.subsec_nanos());
    println!("seed {seed}, a whole import takes {whole_us} us");
    let mut state = seed;
    let mut killed_early = 0;
    for _ in 0..KILLS {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let mut victim = start(&dir, &source);
        thread::sleep(Duration::from_micros((state >> 33) % whole_us));
        victim.kill().unwrap();
        killed_early += u32::from(!victim.wait().unwrap().success());
        let store = Store::open(&dir).unwrap();
        assert_eq!(fs::read_dir(dir.join("tmp")).unwrap().count(), 0);
        for image in store.list().unwrap() {
            assert_eq!(image.id, expected.id);
            assert!(
                fs::read(&image.rootfs).unwrap() == bytes,
                "a half image is in the store"
            );
            assert!(store.remove_unless(image, |_| Ok(false)).unwrap());
        }
    }
    assert!(killed_early > 0);
    let image = import(&dir, &source);
    assert_eq!((image.id, image.names), (expected.id, expected.names));
}
