//! The file system device driven by a mock driver that speaks FUSE as no kernel would.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use hostile::fuse::opcode::*;
use hostile::fuse::{ROOT_ID, SUBMOUNTS, half, init, place, request};
use proptest::prelude::*;
use vm_memory::GuestAddress;

use super::*;
use crate::requests::mock::exchange;

mod outside;

const MEMORY_BYTES: usize = 0x40_0000;
/// Where a request lies, and where its answer goes; the queue is below.
const REQUEST: u64 = 0x1_0000;
const ANSWER: u64 = 0x10_0000;
const ANSWER_BYTES: u32 = 0x4000;

/// A shared folder with something beside it that is not shared.
struct Host {
    folder: tempfile::TempDir,
    memory: GuestMemory,
    device: Fs,
}

/// An answer: the error number that it names, and what follows its header.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    error: i32,
    body: Vec<u8>,
}

impl Host {
    fn new() -> Self {
        Self::trusted(Trust::Briefly)
    }

    fn trusted(trust: Trust) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("shared")).unwrap();
        fs::write(path("secret"), "secret").unwrap();
        fs::write(path("shared/file"), "content").unwrap();
        symlink("../secret", path("shared/link")).unwrap();
        let root = path("shared").to_str().unwrap().to_owned();
        Self::serving(&root, trust, own_descriptors(), folder)
    }

    /// A server that has begun with the folder `root`.
    fn serving(
        root: &str,
        trust: Trust,
        own_descriptors: fs::File,
        folder: tempfile::TempDir,
    ) -> Self {
        let share = Share {
            root: root.to_owned(),
            own_descriptors,
            max_descriptors: 64,
            trust,
        };
        let host = Self {
            memory: GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap(),
            device: Fs::new("tag", share).unwrap(),
            folder,
        };
        assert_eq!(host.send(&init(SUBMOUNTS)).error, 0);
        host
    }

    /// One request with room for its answer.
    fn ask(&self, opcode: u32, node: u64, body: &[u8]) -> Answer {
        self.send(&request(opcode, node, &[body]))
    }

    fn send(&self, request: &[u8]) -> Answer {
        let (used, bytes) = self.offer(request, ANSWER_BYTES);
        let Some((header, rest)) = bytes[..used].split_at_checked(16) else {
            return Answer {
                error: i32::MIN,
                body: vec![],
            };
        };
        Answer {
            error: i32::from_le_bytes(header[4..8].try_into().unwrap()),
            body: rest.to_vec(),
        }
    }

    /// Any bytes as a request; how many bytes the device says it wrote, and what is there.
    fn offer(&self, request: &[u8], room: u32) -> (usize, Vec<u8>) {
        let answer = |memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>| {
            Some(self.device.answer(memory, chain))
        };
        exchange(&self.memory, [REQUEST, ANSWER], request, room, answer)
    }

    /// The node of `name` in `parent`, and its inode number; or the error.
    fn lookup(&self, parent: u64, name: &str) -> Result<(u64, u64), i32> {
        let answer = self.ask(LOOKUP, parent, format!("{name}\0").as_bytes());
        if answer.error != 0 {
            return Err(-answer.error);
        }
        let word = |at: usize| u64::from_le_bytes(answer.body[at..at + 8].try_into().unwrap());
        // struct fuse_entry_out: nodeid first; the inode number begins its attributes.
        Ok((word(0), word(40)))
    }

    fn inode(&self, name: &str) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::symlink_metadata(self.folder.path().join(name))
            .unwrap()
            .ino()
    }
}

fn own_descriptors() -> fs::File {
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH);
    options.open("/proc/self/fd").unwrap()
}

#[test]
fn lookup_finds_what_is_shared_and_nothing_above() {
    let host = Host::new();
    let found = |name| host.lookup(ROOT_ID, name).map(|(_, inode)| inode);
    assert_eq!(found("file"), Ok(host.inode("shared/file")));
    assert_eq!(found("link"), Ok(host.inode("shared/link")));
    for name in ["..", ".", "../..", "/", "/.."] {
        assert_eq!(found(name), Ok(host.inode("shared")), "{name}");
    }
    for name in ["secret", "../secret", "/etc/passwd", "link/x", "../../etc"] {
        assert!(found(name).is_err(), "{name}: {:?}", found(name));
    }
    // A link is a link: what it means is the guest's own affair.
    let (link, _) = host.lookup(ROOT_ID, "link").unwrap();
    let opened = host.ask(OPEN, link, &[0; 8]);
    assert_ne!(opened.error, 0);
}

#[test]
fn missing_name_is_to_be_remembered_only_where_everything_is_trusted() {
    for trust in Trust::ALL {
        let host = Host::trusted(trust);
        let missing = host.ask(LOOKUP, ROOT_ID, b"missing\0");
        let plain = host.offer(&request(LOOKUP, ROOT_ID, &[b"missing\0"]), 143);
        assert_eq!(plain.0, 16, "{trust:?}");
        if trust == Trust::Always {
            // struct fuse_entry_out: nodeid, generation, entry_valid; all else is zero, too.
            let valid = FOREVER.as_secs().to_le_bytes();
            assert_eq!((missing.error, missing.body.len()), (0, 128));
            assert_eq!(missing.body[16..24], valid);
            let rest = [&missing.body[..16], &missing.body[24..]].concat();
            assert_eq!(rest, [0; 120]);
        } else {
            assert_eq!(missing.error, -libc::ENOENT, "{trust:?}");
        }
        // No other error means that there is no such name.
        let (file, _) = host.lookup(ROOT_ID, "file").unwrap();
        assert_eq!(host.lookup(file, "missing"), Err(libc::ENOTDIR));
        let long = host.lookup(ROOT_ID, &"n".repeat(256));
        assert_eq!(long, Err(libc::ENAMETOOLONG));
        fs::write(host.folder.path().join("shared/missing"), "").unwrap();
        let found = host.lookup(ROOT_ID, "missing").map(|(_, inode)| inode);
        assert_eq!(found, Ok(host.inode("shared/missing")));
    }
}

#[test]
fn file_created_is_in_the_folder() {
    let host = Host::new();
    let mut body = half([libc::O_RDWR.unsigned_abs(), 0o100_640, 0, 0]);
    body.extend(b"new\0");
    assert_eq!(host.ask(CREATE, ROOT_ID, &body).error, 0);
    assert!(host.folder.path().join("shared/new").is_file());
    let mut folder = half([0o755, 0]);
    folder.extend(b"folder\0");
    assert_eq!(host.ask(MKDIR, ROOT_ID, &folder).error, 0);
    assert!(host.folder.path().join("shared/folder").is_dir());
}

#[test]
fn request_without_room_for_an_answer_is_not_served() {
    let host = Host::new();
    for opcode in [READ, READDIR, LOOKUP] {
        for room in [0, 1, 15] {
            let body = [0; 64];
            assert_eq!(host.offer(&request(opcode, ROOT_ID, &[&body]), room).0, 0);
        }
    }
}

#[test]
fn offset_that_no_file_has_is_not_served() {
    let host = Host::new();
    let (file, _) = host.lookup(ROOT_ID, "file").unwrap();
    let flags = half([libc::O_RDWR.unsigned_abs(), 0]);
    assert_eq!(host.ask(OPEN, file, &flags).error, 0);
    for opcode in [READ, WRITE] {
        let at = |offset| host.offer(&request(opcode, file, &[&place(0, offset, 1), b"x"]), 64);
        for offset in [1 << 63, u64::MAX] {
            assert_eq!(at(offset).0, 0, "{opcode} at {offset}");
        }
        assert_ne!(at(i64::MAX.unsigned_abs()).0, 0, "{opcode}");
    }
}

#[test]
fn files_beyond_the_limit_of_descriptors_are_refused_and_the_rest_served() {
    let host = Host::new();
    for number in 0..100 {
        fs::write(host.folder.path().join(format!("shared/{number}")), "").unwrap();
    }
    let refused = (0..100)
        .filter(|number| host.lookup(ROOT_ID, &number.to_string()).is_err())
        .count();
    assert!((30..100).contains(&refused), "{refused} refused");
    assert!(host.lookup(ROOT_ID, "..").is_ok());
}

#[test]
fn device_says_what_it_is() {
    let host = Host::new();
    let config = host.device.config();
    assert_eq!((host.device.id(), config.len()), (26, 40));
    assert!(config.starts_with(b"tag\0") && config.ends_with(&[1, 0, 0, 0]));
    let share = |root: &Path| Share {
        root: root.to_str().unwrap().to_owned(),
        own_descriptors: fs::File::open("/proc/self/fd").unwrap(),
        max_descriptors: 1,
        trust: Trust::Never,
    };
    let long = "t".repeat(37);
    assert!(Fs::new(&long, share(host.folder.path())).is_err());
}

proptest! {
    /// Whatever is asked of it, the device answers within its room. Only where a file is opened are names resolved below the
    /// folder; what else keeps them inside is the root of the process, which these tests do not have.
    #[test]
    fn any_bytes_as_requests_are_answered(
        requests in prop::collection::vec((0u32..60, 0u64..6, prop::collection::vec(any::<u8>(), 0..120), 0u32..300), 1..20)
    ) {
        let host = Arc::new(Host::new());
        for (opcode, node, body, room) in requests {
            host.offer(&request(opcode, node, &[&body]), room);
        }
        prop_assert_eq!(fs::read(host.folder.path().join("secret")).unwrap(), b"secret");
        let mut names: Vec<_> = fs::read_dir(host.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        prop_assert_eq!(names, ["secret", "shared"]);
    }
}
