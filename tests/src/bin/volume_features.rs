//! Tries, from inside a pod, what programs do to files, on the volume that is the working folder.
//!
//! Run by the system tests as a pod's app (static, as root) and by hand on any file system. Leaves files behind, by whose
//! look from outside the test tells that the host's file system has them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, Flock, FlockArg, fallocate, fcntl};
use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Uid, fork, mkfifo, setresgid, setresuid};
use tests::trials::{self, Trial};

const TRIALS: &[Trial] = &[
    ("owner_and_mode", owner_and_mode),
    ("set_group_id_folder", set_group_id_folder),
    ("hard_links", hard_links),
    ("symbolic_links", symbolic_links),
    ("rename_over_an_open_file", rename_over_an_open_file),
    ("unlinked_but_open", unlinked_but_open),
    ("append_from_two", append_from_two),
    ("sparse_beyond_4_gib", sparse_beyond_4_gib),
    ("holes_and_allocation", holes_and_allocation),
    ("mapped_shared", mapped_shared),
    ("direct", direct),
    ("posix_locks", posix_locks),
    ("bsd_locks", bsd_locks),
    ("extended_attributes", extended_attributes),
    ("times", times),
    ("fifo_and_socket", fifo_and_socket),
    ("unnamed_files_are_refused", unnamed_files_are_refused),
    ("copy_range", copy_range),
    ("permissions_of_users", permissions_of_users),
    ("folders", folders),
    ("names", names),
];

fn main() -> Result<ExitCode> {
    trials::main(&[TRIALS])
}

fn owner_and_mode() -> Result<()> {
    fs::write("owned", "x")?;
    chown("owned", Some(12), Some(34))?;
    fs::set_permissions("owned", Permissions::from_mode(0o4711))?;
    let found = fs::metadata("owned")?;
    ensure!((found.uid(), found.gid(), found.mode() & 0o7777) == (12, 34, 0o4711));
    Ok(())
}

fn set_group_id_folder() -> Result<()> {
    fs::create_dir("group")?;
    chown("group", None, Some(77))?;
    fs::set_permissions("group", Permissions::from_mode(0o2775))?;
    fs::write("group/file", "")?;
    fs::create_dir("group/folder")?;
    ensure!(fs::metadata("group/file")?.gid() == 77);
    ensure!(fs::metadata("group/folder")?.mode() & 0o2000 != 0);
    Ok(())
}

fn hard_links() -> Result<()> {
    fs::write("link-a", "one")?;
    fs::hard_link("link-a", "link-b")?;
    OpenOptions::new()
        .append(true)
        .open("link-b")?
        .write_all(b"two")?;
    let (a, b) = (fs::metadata("link-a")?, fs::metadata("link-b")?);
    ensure!(fs::read("link-a")? == b"onetwo" && a.ino() == b.ino() && a.nlink() == 2);
    Ok(())
}

fn symbolic_links() -> Result<()> {
    symlink("no such/\u{e9} thing", "symbolic")?;
    ensure!(fs::read_link("symbolic")?.as_os_str() == "no such/\u{e9} thing");
    ensure!(File::open("symbolic").is_err());
    Ok(())
}

fn rename_over_an_open_file() -> Result<()> {
    fs::write("renamed", "old")?;
    fs::write("renamed.new", "new")?;
    let mut old = File::open("renamed")?;
    fs::rename("renamed.new", "renamed")?;
    let mut text = String::new();
    old.read_to_string(&mut text)?;
    ensure!(text == "old" && fs::read("renamed")? == b"new" && old.metadata()?.nlink() == 0);
    Ok(())
}

/// A new file to read and write.
fn new_file(name: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    let made = options.read(true).write(true).create_new(true).open(name);
    made.with_context(|| format!("make {name}"))
}

fn unlinked_but_open() -> Result<()> {
    let mut file = new_file("unlinked")?;
    fs::remove_file("unlinked")?;
    file.write_all(b"still here")?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    ensure!(text == "still here" && file.metadata()?.nlink() == 0);
    Ok(())
}

fn append_from_two() -> Result<()> {
    let open = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open("appended")
    };
    let (mut one, mut other) = (open()?, open()?);
    for _ in 0..100 {
        one.write_all(b"a")?;
        other.write_all(b"b")?;
    }
    ensure!(fs::read("appended")? == b"ab".repeat(100));
    Ok(())
}

fn sparse_beyond_4_gib() -> Result<()> {
    const END: u64 = 5 << 30;
    let file = new_file("sparse")?;
    file.write_all_at(b"end", END)?;
    let found = file.metadata()?;
    ensure!(found.len() == END + 3 && found.blocks() < 1000, "{found:?}");
    let mut hole = [1; 16];
    file.read_exact_at(&mut hole, END - 100)?;
    ensure!(hole == [0; 16]);
    Ok(())
}

fn holes_and_allocation() -> Result<()> {
    let mut file = new_file("holes")?;
    file.write_all(&[7; 64 << 10])?;
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, punch, 16 << 10, 16 << 10).context("punch a hole")?;
    let hole =
        nix::unistd::lseek(&file, 0, nix::unistd::Whence::SeekHole).context("seek a hole")?;
    ensure!(hole == 16 << 10, "the hole is at {hole}");
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).context("allocate")?;
    ensure!(file.metadata()?.len() == 1 << 20);
    file.set_len(5)?;
    file.seek(SeekFrom::Start(0))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    ensure!(rest == [7; 5]);
    Ok(())
}

fn mapped_shared() -> Result<()> {
    const BYTES: usize = 3 * 4096;
    let file = new_file("mapped")?;
    file.set_len(BYTES as u64)?;
    let length = NonZeroUsize::new(BYTES).context("no length")?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    #[expect(unsafe_code, reason = "a mapping is what is tried")]
    // SAFETY: the mapping is this function's own, and written within its length.
    unsafe {
        let memory = mmap(None, length, protection, MapFlags::MAP_SHARED, &file, 0)?;
        memory.cast::<u8>().add(5000).write(42);
        msync(memory, BYTES, MsFlags::MS_SYNC)?;
    }
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5000)?;
    ensure!(byte == [42]);
    Ok(())
}

fn direct() -> Result<()> {
    #[repr(align(4096))]
    struct Aligned([u8; 8192]);
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT);
    let file = options.open("direct")?;
    let mut buffer = Aligned([9; 8192]);
    file.write_all_at(&buffer.0, 4096)?;
    buffer.0.fill(0);
    file.read_exact_at(&mut buffer.0, 4096)?;
    ensure!(buffer.0 == [9; 8192] && file.metadata()?.len() == 12288);
    Ok(())
}

/// Runs `trial` in a child and gives its exit code.
fn in_child(trial: impl FnOnce() -> Result<()>) -> Result<()> {
    #[expect(unsafe_code, reason = "another process is what is tried")]
    // SAFETY: a trial's process has a single thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let ended = trial();
            if let Err(error) = &ended {
                eprintln!("{error:#}");
            }
            std::process::exit(i32::from(ended.is_err()))
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            status => bail!("the other process: {status:?}"),
        },
    }
}

fn posix_locks() -> Result<()> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open("locked")
    };
    let (l_type, l_whence) = (libc::F_WRLCK.try_into()?, libc::SEEK_SET.try_into()?);
    let lock = || libc::flock {
        l_type,
        l_whence,
        l_start: 10,
        l_len: 10,
        l_pid: 0,
    };
    let file = open()?;
    fcntl(&file, FcntlArg::F_SETLK(&lock())).context("lock")?;
    in_child(|| {
        let other = open()?;
        let refused = fcntl(&other, FcntlArg::F_SETLK(&lock()));
        ensure!(refused == Err(Errno::EAGAIN), "{refused:?}");
        let beside = libc::flock {
            l_start: 20,
            ..lock()
        };
        fcntl(&other, FcntlArg::F_SETLK(&beside)).context("lock beside it")?;
        Ok(())
    })
}

fn bsd_locks() -> Result<()> {
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open("flocked")
    };
    let held = Flock::lock(open()?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    in_child(|| {
        let refused = Flock::lock(open()?, FlockArg::LockExclusiveNonblock).map(drop);
        ensure!(matches!(refused, Err((_, Errno::EWOULDBLOCK))));
        Ok(())
    })?;
    drop(held);
    Ok(())
}

fn extended_attributes() -> Result<()> {
    fs::write("attributes", "")?;
    let value = vec![b'v'; 300];
    xattr::set("attributes", "user.one", &value)?;
    xattr::set("attributes", "user.two", b"")?;
    ensure!(xattr::get("attributes", "user.one")? == Some(value));
    let mut names: Vec<_> = xattr::list("attributes")?.collect();
    names.sort();
    ensure!(names == ["user.one", "user.two"], "{names:?}");
    xattr::remove("attributes", "user.two")?;
    ensure!(xattr::get("attributes", "user.two")?.is_none());
    Ok(())
}

fn times() -> Result<()> {
    let file = File::create("times")?;
    let moment = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    file.set_times(
        fs::FileTimes::new()
            .set_modified(moment)
            .set_accessed(moment),
    )?;
    ensure!(fs::metadata("times")?.modified()? == moment);
    Ok(())
}

fn fifo_and_socket() -> Result<()> {
    mkfifo("fifo", Mode::from_bits_truncate(0o600))?;
    let writer = std::thread::spawn(|| fs::write("fifo", "through"));
    ensure!(fs::read("fifo")? == b"through");
    writer.join().ok().context("the writer panicked")??;
    let listener = UnixListener::bind("socket")?;
    let mut client = UnixStream::connect("socket")?;
    client.write_all(b"x")?;
    let mut byte = [0];
    listener.accept()?.0.read_exact(&mut byte)?;
    ensure!(byte == *b"x");
    let device = mknod(
        "device",
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        makedev(1, 5),
    );
    ensure!(
        device == Err(Errno::EPERM),
        "a device on the host: {device:?}"
    );
    Ok(())
}

/// The file server has none; programs that hear so make a named file instead.
fn unnamed_files_are_refused() -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_TMPFILE);
    let refused = options.open(".").map_err(|error| error.raw_os_error());
    ensure!(
        matches!(refused, Err(Some(libc::EOPNOTSUPP))),
        "{refused:?}"
    );
    Ok(())
}

fn copy_range() -> Result<()> {
    fs::write("copied-from", vec![3; 100_000])?;
    let (from, to) = (File::open("copied-from")?, File::create("copied-to")?);
    let copied = nix::fcntl::copy_file_range(&from, None, &to, None, 100_000)?;
    ensure!(copied == 100_000 && fs::read("copied-to")? == vec![3; 100_000]);
    Ok(())
}

fn permissions_of_users() -> Result<()> {
    fs::write("private", "secret")?;
    fs::set_permissions("private", Permissions::from_mode(0o600))?;
    fs::create_dir("theirs")?;
    chown("theirs", Some(1000), Some(1000))?;
    in_child(|| {
        let (uid, gid) = (Uid::from_raw(1000), Gid::from_raw(1000));
        nix::unistd::setgroups(&[])?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        ensure!(File::open("private").is_err() && fs::write("not-theirs", "").is_err());
        fs::write("theirs/file", "x")?;
        let found = fs::metadata("theirs/file")?;
        ensure!((found.uid(), found.gid()) == (1000, 1000));
        ensure!(chown("theirs/file", Some(0), None).is_err());
        Ok(())
    })
}

fn folders() -> Result<()> {
    fs::create_dir_all("deep/er/and/deeper")?;
    ensure!(
        fs::remove_dir("deep").is_err_and(|error| error.raw_os_error() == Some(libc::ENOTEMPTY))
    );
    fs::rename("deep/er", "deeper")?;
    fs::remove_dir_all("deep")?;
    for number in 0..300 {
        fs::write(format!("deeper/{number}"), "")?;
    }
    ensure!(fs::read_dir("deeper")?.count() == 301);
    Ok(())
}

fn names() -> Result<()> {
    let long = "n".repeat(255);
    for name in [" ", "\n", "-", "a\\b", "\u{1f980}", &long] {
        fs::write(format!("./{name}"), name)?;
        ensure!(fs::read_to_string(format!("./{name}"))? == name);
        fs::remove_file(format!("./{name}"))?;
    }
    ensure!(
        fs::write("n".repeat(256), "")
            .is_err_and(|error| error.raw_os_error() == Some(libc::ENAMETOOLONG))
    );
    Ok(())
}
