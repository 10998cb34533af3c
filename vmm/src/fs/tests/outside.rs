//! A hostile kernel's requests to a server whose root is laid out as in a pod's jail: shares by number, barred, and nothing
//! else. Whatever is asked, what lies outside of them, and what is read-only, is neither changed nor read.

use std::collections::BTreeMap;
use std::fs::{self, FileTimes};
use std::os::unix::fs::{MetadataExt, chroot, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hostile::fuse::names::{Body, NAMED, names, then};
use hostile::fuse::opcode::*;
use hostile::fuse::{FATTR_SIZE, ROOT_ID, SUBMOUNTS, half, init, place, whole};

use super::{Answer, Host, Trust, own_descriptors};

/// In files that the guest may not have.
const SECRET: &str = "what nobody shares";

/// Lays out the root, as root of a user namespace, and lets the guest ask.
const IN_A_ROOT: &str = "set -e; bars=nosuid,nodev,noexec,nosymfollow; mount -t tmpfs -o mode=755 tmpfs root; \
    mkdir root/0 root/1; mount --bind writable root/0; mount -o remount,bind,$bars root/0; \
    mount --bind kept root/1; mount -o remount,bind,ro,$bars root/1; mount -o remount,bind,ro root; \
    exec \"$0\" --exact fs::tests::outside::guest --ignored";

const FATTR_MODE: u32 = 1;
/// For a race to have been run.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn hostile_kernel_reaches_nothing_outside_its_shares_and_changes_none_that_is_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["root", "writable", "kept", "kept/folder", "beside"] {
        fs::create_dir(path(name)).unwrap();
    }
    for name in ["secret", "beside/file", "beside/victim", "kept/file"] {
        fs::write(path(name), SECRET).unwrap();
        let never_read = FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH);
        let file = fs::File::options().write(true).open(path(name)).unwrap();
        file.set_times(never_read).unwrap();
    }
    let before = ["secret", "beside", "kept"].map(|name| tree(&path(name)));
    let guest = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", IN_A_ROOT])
        .arg(std::env::current_exe().unwrap())
        .current_dir(folder.path())
        .output()
        .expect("unshare starts");
    let said = String::from_utf8_lossy(&guest.stdout) + String::from_utf8_lossy(&guest.stderr);
    assert!(
        guest.status.success() && said.contains("1 passed"),
        "{said}"
    );
    let after = ["secret", "beside", "kept"].map(|name| tree(&path(name)));
    assert_eq!(before, after);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
}

/// All that tells of a change, or of a file's being read.
fn tree(at: &Path) -> BTreeMap<PathBuf, [i64; 7]> {
    let found = fs::symlink_metadata(at).unwrap();
    let whole = [found.ino(), found.nlink(), found.size()].map(u64::cast_signed);
    let read = if found.is_dir() { 0 } else { found.atime() };
    let facts = [
        whole[0],
        whole[1],
        whole[2],
        found.mode().into(),
        read,
        found.mtime_nsec(),
        found.ctime_nsec(),
    ];
    let mut all = BTreeMap::from([(at.to_owned(), facts)]);
    if found.is_dir() {
        for entry in fs::read_dir(at).unwrap() {
            all.extend(tree(&entry.unwrap().path()));
        }
    }
    all
}

/// The guest, in a process whose root has nothing but the shares: 0 is writable, 1 is not.
#[test]
#[ignore = "started by the test above, in a root of its own"]
fn guest() {
    let folder = std::env::current_dir().unwrap();
    let outside = Outside {
        inodes: [".", "secret", "beside", "beside/file", "beside/victim"]
            .map(|name| fs::metadata(name).unwrap().ino()),
        descriptors: own_descriptors(),
        folder,
    };
    chroot("root").unwrap();
    std::env::set_current_dir("/").unwrap();
    for (asked, body) in NAMED {
        ask_names(&outside, *asked, *body);
    }
    ask_for_what_is_unknown(&Guest::new(&outside));
    write_to_what_is_read_only(&Guest::new(&outside));
    race(&Guest::new(&outside));
}

/// What the guest is not to reach.
struct Outside {
    /// Its name on the host.
    folder: PathBuf,
    inodes: [u64; 5],
    descriptors: fs::File,
}

/// A server begun anew over a share laid out anew, and nodes of both.
struct Guest<'a> {
    outside: &'a Outside,
    host: Host,
    /// The root, share 0, its file and folder and link, share 1, its file and folder.
    nodes: [u64; 8],
}

impl<'a> Guest<'a> {
    fn new(outside: &'a Outside) -> Self {
        lay_out(&outside.folder);
        let scratch = tempfile::tempdir_in("/0").unwrap();
        let descriptors = outside.descriptors.try_clone().unwrap();
        let host = Host::serving("/", Trust::Briefly, descriptors, scratch);
        let look = |parent, name| host.lookup(parent, name).unwrap().0;
        let [writable, kept] = ["0", "1"].map(|name| look(ROOT_ID, name));
        let [file, folder, link] = ["file", "folder", "link"].map(|name| look(writable, name));
        let [kept_file, kept_folder] = ["file", "folder"].map(|name| look(kept, name));
        let nodes = [
            ROOT_ID,
            writable,
            file,
            folder,
            link,
            kept,
            kept_file,
            kept_folder,
        ];
        Self {
            outside,
            host,
            nodes,
        }
    }

    /// Asks; no answer is about what is outside.
    fn ask(&self, opcode: u32, node: u64, body: &[u8]) -> Answer {
        let answer = self.host.ask(opcode, node, body);
        // struct fuse_entry_out: the inode number begins the attributes.
        let inode = answer.body.get(40..48);
        let inode = inode.map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        let is_outside = inode.is_some_and(|inode| self.outside.inodes.contains(&inode));
        assert!(!is_outside, "{opcode} of {node} with {body:?}");
        answer
    }
}

/// Share 0 as the guest has made it, with links that lead outside.
fn lay_out(outside: &Path) {
    for entry in fs::read_dir("/0").unwrap() {
        let entry = entry.unwrap();
        let removed = if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        removed.unwrap();
    }
    fs::create_dir("/0/folder").unwrap();
    fs::write("/0/file", "shared").unwrap();
    symlink(outside.join("secret"), "/0/link").unwrap();
    symlink(outside.join("beside"), "/0/outward").unwrap();
    symlink("../beside", "/0/climbing").unwrap();
}

/// An operation about every name in every node, to a server each, for a guest has a limit of what it keeps.
fn ask_names(outside: &Outside, asked: u32, body: Body) {
    let mut done = 0;
    for name in names(&outside.folder) {
        for number in 0..8 {
            let guest = Guest::new(outside);
            let is_between = [LINK, RENAME, RENAME2].contains(&asked);
            let others = if is_between { 8 } else { 1 };
            for other in &guest.nodes[..others] {
                for body in body(&name, *other) {
                    let answer = guest.ask(asked, guest.nodes[number], &body);
                    done += u32::from(answer.error == 0);
                }
            }
        }
    }
    // Honest ones are carried out; that there are attributes depends on the file system.
    let is_certain = ![SETXATTR, GETXATTR, REMOVEXATTR].contains(&asked);
    assert!(done > 0 || !is_certain, "{asked} was never done");
}

/// Nodes and handles that were never given out.
fn ask_for_what_is_unknown(guest: &Guest) {
    for unknown in [0, 99, 1 << 32, u64::MAX] {
        for (asked, body) in NAMED {
            for body in body(b"file\0", unknown) {
                let answer = guest.ask(*asked, unknown, &body);
                assert!(answer.error < 0, "{asked} of {unknown}: {answer:?}");
            }
        }
        for asked in [GETATTR, READLINK, OPEN, OPENDIR, STATFS, SETATTR] {
            assert!(guest.ask(asked, unknown, &[0; 88]).error < 0, "{asked}");
        }
        for asked in [READ, READDIR, READDIRPLUS, WRITE, FSYNC, FALLOCATE, LSEEK] {
            let body = then(place(unknown, 0, 1), b"x");
            let answer = guest.ask(asked, guest.nodes[2], &body);
            assert!(answer.error < 0, "{asked} by {unknown}: {answer:?}");
        }
        let linked = then(whole([unknown]), b"hard\0");
        assert!(guest.ask(LINK, guest.nodes[1], &linked).error < 0);
    }
}

/// Everything that writes, in share 1; and from there into share 0.
fn write_to_what_is_read_only(guest: &Guest) {
    let [_, writable, file, _, _, kept, kept_file, kept_folder] = guest.nodes;
    for (asked, body) in NAMED {
        if [LOOKUP, GETXATTR].contains(asked) {
            continue;
        }
        for (node, other) in [(kept, kept_folder), (kept, writable), (writable, kept)] {
            for name in [&b"file\0"[..], b"folder\0", b"new\0"] {
                // Between two mounts nothing is moved or linked; in the writable one the rest is its own affair.
                let other = if *asked == LINK { kept_file } else { other };
                let is_about_kept = node == kept || [LINK, RENAME, RENAME2].contains(asked);
                for body in body(name, other) {
                    let answer = guest.ask(*asked, node, &body);
                    assert!(answer.error < 0 || !is_about_kept, "{asked} {name:?}");
                }
            }
        }
    }
    let setattr = |valid: u32| then(half([valid, 0]), &[0; 80]);
    for valid in [FATTR_MODE, FATTR_SIZE, 6, 48] {
        let answer = guest.ask(SETATTR, kept_file, &setattr(valid));
        assert_eq!(answer.error, -libc::EROFS, "{valid}");
    }
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_TRUNC | libc::O_RDWR] {
        let answer = guest.ask(OPEN, kept_file, &half([flags.unsigned_abs(), 0]));
        assert_eq!(answer.error, -libc::EROFS, "{flags}");
    }
    // What is open for reading is not for writing, and is no place to copy to.
    let open = |node, flags: i32| {
        let answer = guest.ask(OPEN, node, &half([flags.unsigned_abs(), 0]));
        assert_eq!(answer.error, 0);
        u64::from_le_bytes(answer.body[..8].try_into().unwrap())
    };
    let (from, to) = (open(file, libc::O_RDONLY), open(kept_file, libc::O_RDONLY));
    let write = then(place(to, 0, 1), b"x");
    assert!(guest.ask(WRITE, kept_file, &write).error < 0);
    let allocate = whole([to, 0, 4096, 0]);
    assert!(guest.ask(FALLOCATE, kept_file, &allocate).error < 0);
    let copy = whole([from, 0, kept_file, to, 0, 4, 0]);
    assert!(guest.ask(COPY_FILE_RANGE, file, &copy).error < 0);
}

/// A folder that is now and then a link to one outside, while the guest walks through it.
fn race(guest: &Guest) {
    fs::create_dir("/0/turning").unwrap();
    fs::write("/0/turning/file", "shared").unwrap();
    let (deadline, stop) = (Instant::now() + DEADLINE, AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                for (from, to) in [
                    ("turning", "aside"),
                    ("outward", "turning"),
                    ("turning", "outward"),
                    ("aside", "turning"),
                ] {
                    let _ = fs::rename(Path::new("/0").join(from), Path::new("/0").join(to));
                }
            }
        });
        let (mut folders, mut links) = (0, 0);
        while folders.min(links) < 200 {
            assert!(
                Instant::now() < deadline,
                "{folders} folders, {links} links"
            );
            walk_through(guest, &mut folders, &mut links);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Once, by a kernel that begins anew: it has nothing open from before.
fn walk_through(guest: &Guest, folders: &mut u32, links: &mut u32) {
    assert_eq!(guest.host.send(&init(SUBMOUNTS)).error, 0);
    let (writable, _) = guest.host.lookup(ROOT_ID, "0").unwrap();
    if let Ok((node, _)) = guest.host.lookup(writable, "turning") {
        let listed = guest.ask(OPENDIR, node, &half([0, 0])).error == 0;
        *if listed { folders } else { links } += 1;
        guest.ask(SETATTR, node, &then(half([FATTR_MODE, 0]), &[0xff; 80]));
        guest.ask(OPEN, node, &half([libc::O_RDWR.unsigned_abs(), 0]));
        guest.ask(UNLINK, node, b"victim\0");
        guest.ask(MKDIR, node, &then(half([0o755, 0]), b"made\0"));
    }
    guest.ask(UNLINK, writable, b"turning/victim\0");
    guest.ask(LOOKUP, writable, b"turning/file\0");
    let create = half([libc::O_RDWR.unsigned_abs(), 0o100_666, 0, 0]);
    guest.ask(CREATE, writable, &then(create, b"turning/new\0"));
    let folder = then(half([0o755, 0]), b"turning/made\0");
    guest.ask(MKDIR, writable, &folder);
}
