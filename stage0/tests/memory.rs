//! How much memory an import takes. A test program of its own, in which nothing else is started: what is measured is the peak
//! of all children.

use std::fs::File;
use std::io::{self, Read};
use std::process::Command;

use nix::sys::resource::{UsageWho, getrusage};

/// What no import may need, however large the image is.
const MOST_KIB: i64 = 64 << 10;

/// Bytes of a file that is a hole but for its last ones.
const SPARSE: u64 = 64 << 30;

/// Bytes of a file of zeros, which compress to next to nothing; in the long run, for all are read.
fn zeros() -> u64 {
    match std::env::var("FAIRING_LONG").is_ok_and(|value| value == "1") {
        true => 4 << 30,
        false => 256 << 20,
    }
}

fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header
}

fn fill(tar: &mut tar::Builder<impl io::Write>) -> io::Result<()> {
    let mut zero = header(tar::EntryType::Regular, zeros());
    tar.append_data(&mut zero, "zeros", io::repeat(0).take(zeros()))?;
    let mut hole = header(tar::EntryType::GNUSparse, 512);
    if let Some(gnu) = hole.as_gnu_mut() {
        gnu.set_real_size(SPARSE);
        gnu.sparse[0].set_offset(SPARSE - 512);
        gnu.sparse[0].set_length(512);
    }
    tar.append_data(&mut hole, "sparse", &[1; 512][..])
}

#[test]
fn image_of_gibibytes_is_imported_in_less_than_64_mib() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("zeros.tar.zst");
    let file = File::create(&path).expect("a file");
    let mut tar = tar::Builder::new(zstd::Encoder::new(file, 1).expect("an encoder"));
    fill(&mut tar).expect("room");
    let encoder = tar.into_inner().expect("an end");
    encoder.finish().expect("an end");
    let packed = path.metadata().expect("the file").len();
    assert!(packed < zeros() / 1000, "{packed} bytes");

    let output = Command::new(env!("CARGO_BIN_EXE_fairing"))
        .arg("--dir")
        .arg(folder.path().join("data"))
        .args(["image", "import"])
        .arg(&path)
        .output()
        .expect("fairing starts");
    assert!(output.status.success(), "{output:?}");
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).expect("figures");
    let peak_kib = peak.max_rss();
    assert!((1..MOST_KIB).contains(&peak_kib), "{peak_kib} KiB");
}
