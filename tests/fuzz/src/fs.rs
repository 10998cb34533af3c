//! The file system device with the file server behind it. Input: a byte of options, then guest memory.
//!
//! The server's last wall is the root of its process, as in a pod: here the thread that serves gets one of its own, for
//! which the process is root in a user namespace; so no input reaches a file or makes a device of the host.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::panic;
use std::path::Path;
use std::thread;

use hostile::fuse::opcode::*;
use hostile::fuse::{FATTR_SIZE, ROOT_ID, SUBMOUNTS, half, init, place, request, whole};
use nix::libc::O_PATH;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};
use vmm::fs::{Fs, Share, Trust};

use crate::queues::{Guest, Image};

const EVENT_IDX: u8 = 1;

/// What the first lookup of a fresh server finds.
const FOUND: u64 = 2;
/// What the first opening gives.
const HANDLE: u64 = 0;

/// Serves three rounds of requests about a folder of a file and two folders.
///
/// # Panics
/// If the thread may have no root of its own.
pub fn run(input: &[u8]) {
    let folder = shared();
    let descriptors = own_descriptors();
    let serving = || {
        unshare(CloneFlags::CLONE_FS)
            .and_then(|()| chroot(folder.path()))
            .and_then(|()| chdir("/"))
            .expect("a root for this thread: call this under unshare --map-root-user");
        serve(input, Path::new("/"), descriptors, 3);
    };
    // libFuzzer's hook would end the process in that thread, whose root has no place for the input that was its end.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let served = thread::scope(|scope| scope.spawn(serving).join());
    panic::set_hook(hook);
    served.expect("requests are answered");
}

fn shared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), [7; 5000]).expect("a file");
    fs::create_dir(path("empty")).expect("a folder");
    fs::create_dir(path("folder")).expect("a folder");
    symlink("../file", path("folder/link")).expect("a link");
    folder
}

fn serve(input: &[u8], root: &Path, own_descriptors: File, rounds: usize) -> Option<Guest> {
    let (options, image) = input.split_first()?;
    let share = Share {
        root: root.to_str().expect("a name of ours").to_owned(),
        own_descriptors,
        max_descriptors: 64,
        trust: Trust::Briefly,
    };
    let device = Fs::new("fuzz", share).expect("a folder to share");
    let mut guest = Guest::new(image, Box::new(device), options & EVENT_IDX != 0);
    for _ in 0..rounds {
        guest.turn();
        guest.offer_again();
    }
    Some(guest)
}

/// /proc/self/fd, which a server in a root of its own has no path to.
fn own_descriptors() -> File {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_PATH);
    options.open("/proc/self/fd").expect("a mounted /proc")
}

/// One request, and how many bytes its answer may have.
type Request = (Vec<u8>, usize);

fn ask(opcode: u32, node: u64, body: &[&[u8]], room: usize) -> Request {
    (request(opcode, node, body), room)
}

fn lookup(parent: u64, name: &[u8]) -> Request {
    ask(LOOKUP, parent, &[name], 144)
}

/// The first `size` bytes of an opened file, or of what a folder lists.
fn read(opcode: u32, node: u64, size: u32) -> Request {
    ask(opcode, node, &[&place(HANDLE, 0, size)], 16 + size as usize)
}

/// A guest that reads a file.
fn reading() -> Vec<Request> {
    vec![
        lookup(ROOT_ID, b"file\0"),
        ask(GETATTR, FOUND, &[&whole([0, 0])], 120),
        ask(OPEN, FOUND, &[&half([0, 0])], 32),
        read(READ, FOUND, 4096),
        ask(LSEEK, FOUND, &[&whole([HANDLE, 0, 4])], 24),
        ask(FSYNC, FOUND, &[&whole([HANDLE, 0])], 16),
        ask(RELEASE, FOUND, &[&whole([HANDLE, 0, 0])], 16),
    ]
}

/// A guest that looks into folders.
fn listing() -> Vec<Request> {
    vec![
        lookup(ROOT_ID, b"folder\0"),
        lookup(FOUND, b"link\0"),
        ask(READLINK, FOUND + 1, &[], 272),
        ask(OPENDIR, ROOT_ID, &[&half([0, 0])], 32),
        read(READDIR, ROOT_ID, 512),
        read(READDIRPLUS, ROOT_ID, 1024),
        ask(STATFS, ROOT_ID, &[], 96),
    ]
}

/// A guest that makes a file and fills it.
fn writing() -> Vec<Request> {
    let copied = whole([HANDLE, 0, FOUND, HANDLE, 8192, 100, 0]);
    let truncated = [half([FATTR_SIZE, 0]), whole([0, 100]), vec![0; 64]].concat();
    vec![
        ask(
            CREATE,
            ROOT_ID,
            &[&half([2, 0o100_640, 0, 0]), b"new\0"],
            160,
        ),
        ask(WRITE, FOUND, &[&place(HANDLE, 0, 64), &[5; 64]], 24),
        ask(FALLOCATE, FOUND, &[&whole([HANDLE, 0, 9000, 0])], 16),
        ask(COPY_FILE_RANGE, FOUND, &[&copied], 24),
        ask(SETATTR, FOUND, &[&truncated], 120),
        ask(FLUSH, FOUND, &[&whole([HANDLE, 0, 0])], 16),
        ask(SYNCFS, FOUND, &[&whole([0])], 16),
    ]
}

/// A guest that makes, moves and removes names.
fn naming() -> Vec<Request> {
    vec![
        lookup(ROOT_ID, b"file\0"),
        ask(LINK, ROOT_ID, &[&whole([FOUND]), b"hard\0"], 144),
        ask(MKDIR, ROOT_ID, &[&half([0o755, 0]), b"made\0"], 144),
        ask(SYMLINK, ROOT_ID, &[b"soft\0../file\0"], 144),
        ask(
            MKNOD,
            ROOT_ID,
            &[&half([0o010_644, 0, 0, 0]), b"pipe\0"],
            144,
        ),
        ask(
            RENAME2,
            ROOT_ID,
            &[&whole([ROOT_ID, 1]), b"hard\0moved\0"],
            16,
        ),
        ask(UNLINK, ROOT_ID, &[b"moved\0"], 16),
    ]
}

/// A guest that keeps extended attributes.
fn attributes() -> Vec<Request> {
    vec![
        lookup(ROOT_ID, b"file\0"),
        ask(SETXATTR, FOUND, &[&half([5, 0]), b"user.a\0value"], 16),
        ask(GETXATTR, FOUND, &[&half([64, 0]), b"user.a\0"], 80),
        ask(LISTXATTR, FOUND, &[&half([64, 0])], 80),
        ask(REMOVEXATTR, FOUND, &[b"user.a\0"], 16),
        ask(RMDIR, ROOT_ID, &[b"empty\0"], 16),
        ask(RENAME, ROOT_ID, &[&whole([ROOT_ID]), b"file\0other\0"], 16),
    ]
}

/// What guests do with files; each forgets a file as well, on the queue for that.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let guests = [reading(), listing(), writing(), naming(), attributes()];
    let image = |requests: &Vec<Request>| {
        let mut image = Image::new(2);
        let (forget, _) = ask(BATCH_FORGET, 0, &[&half([1, 0]), &whole([FOUND, 1])], 0);
        image.chain(0, &[&forget], &[]);
        // With submounts, of whose absence the server would print a line each time.
        let init = (init(SUBMOUNTS), 80);
        for (request, room) in [&init].into_iter().chain(requests) {
            image.chain(1, &[request], &[*room]);
        }
        image.with_options(EVENT_IDX)
    };
    guests.iter().map(image).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names in the folder after each seed.
    const MADE: [&[&str]; 5] = [
        &["empty", "file", "folder"],
        &["empty", "file", "folder"],
        &["empty", "file", "folder", "new"],
        &["empty", "file", "folder", "made", "pipe", "soft"],
        &["folder", "other"],
    ];

    #[test]
    fn seeds_are_what_the_server_does() {
        for (seed, made) in seeds().iter().zip(MADE) {
            let folder = shared();
            let guest = serve(seed, folder.path(), own_descriptors(), 1).expect("a whole input");
            assert_eq!(guest.used(1), 8);
            // Each is a descriptor with the request and one for the answer, whose second word is the error.
            for request in 0..8 {
                assert_eq!(guest.word(1, 2 * request + 1, 4), 0, "request {request}");
            }
            let entries = fs::read_dir(folder.path()).expect("a folder");
            let names = entries.map(|entry| entry.expect("an entry").file_name());
            let names: BTreeSet<_> = names.collect();
            assert!(names.iter().eq(made), "{names:?}");
        }
    }
}
