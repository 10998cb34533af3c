//! Shared folders beside the host itself, the writable layer over an image, and QEMU's virtio-fs and 9p: what a `git status` and
//! a transaction of a database take in each, by a clock that counts instructions.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tests::mounted::Mounted;

use crate::chamber::mount_tmpfs;
use crate::shared_work::{LARGE, Worked, output};
use crate::subject::{self, Server};

/// A tmpfs that goes with this process's mount namespace: all files that are worked on, and the store.
const FOLDER: &str = "/run/fairing-shares";
/// Where the work finds its folder, and this program.
pub const PLACE: &str = "/mnt";
const PROGRAM: &str = "/mnt/bench";
/// Where it finds the same in the image.
const IN_IMAGE: &str = "/srv";
const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";
/// What the peer's PID 1 leaves in the folder.
pub const FIGURES: &str = "figures";

/// The place that others are compared with.
pub const HOST: &str = "the host itself";
/// The place that a target is for.
pub const OURS: &str = "fairing, cache=always";

/// By place, in words.
pub type Shares = BTreeMap<String, Worked>;

/// Measures one place of those that scripts/bench lists. Not among them is `cache=none`, with which each name of a path is a request:
/// counting those takes too long. `store` holds Debian with git, PostgreSQL and what they work on.
pub fn measure(store: &str, place: &str) -> Result<Shares> {
    let bench = Bench::prepare(store)?;
    let data = bench.path("data");
    let worked = match place {
        HOST => bench.host(),
        "fairing, block root" => {
            let program = format!("-v={data}/bench:{PROGRAM}:ro");
            bench.fairing(&program, IN_IMAGE, LARGE)
        }
        OURS => bench.fairing(&format!("-v={data}:{PLACE}:cache=always"), PLACE, LARGE),
        // Each look at the large tree would be 50,000 requests.
        "fairing, cache=auto" => bench.fairing(&format!("-v={data}:{PLACE}:cache=auto"), PLACE, ""),
        "QEMU's virtiofsd, cache=always" => bench.qemu_with_virtiofsd("always"),
        // Nor here, where each file is several.
        "QEMU's 9p, cache=loose" => bench.qemu(&Server::NineP(&data), ""),
        _ => bail!("{place:?} is no place"),
    };
    let worked = worked.with_context(|| place.to_owned())?;
    Ok(Shares::from([(place.to_owned(), worked)]))
}

/// Everything that is needed, on the tmpfs.
struct Bench {
    image: PathBuf,
}

impl Bench {
    fn prepare(store: &str) -> Result<Self> {
        mount_tmpfs(FOLDER, "80%")?;
        run("cp", &["-a", store, &format!("{FOLDER}/store")])?;
        for (from, to) in [
            ("target/fairing", "bin"),
            ("target/stage1-kvm", "lib/fairing"),
        ] {
            fs::create_dir_all(format!("{FOLDER}/{to}"))?;
            run(
                "cp",
                &["-a", "--sparse=always", from, &format!("{FOLDER}/{to}")],
            )?;
        }
        let bench = Self {
            image: Path::new(FOLDER).join("image.erofs"),
        };
        let store = Path::new(FOLDER).join("store");
        tests::image_disk(&store, &bench.image)?;
        let debian = bench.path("debian");
        fs::create_dir_all(bench.path("data"))?;
        // It goes with the mount namespace.
        mem::forget(Mounted::image(&store, PathBuf::from(&debian)));
        run(
            "cp",
            &["-a", &format!("{debian}{IN_IMAGE}/."), &bench.path("data")],
        )?;
        fs::copy(std::env::current_exe()?, bench.path("data/bench"))
            .context("copy this program")?;
        run(
            "mount",
            &["--bind", &bench.path("data"), &format!("{debian}{PLACE}")],
        )?;
        run("mount", &["-t", "tmpfs", "tmpfs", &format!("{debian}/tmp")])?;
        for folder in ["/dev", "/proc"] {
            run("mount", &["--rbind", folder, &format!("{debian}{folder}")])?;
        }
        Ok(bench)
    }

    fn path(&self, name: &str) -> String {
        format!("{FOLDER}/{name}")
    }

    fn host(&self) -> Result<Worked> {
        let mut command = Command::new("chroot");
        command
            .arg(self.path("debian"))
            .args([PROGRAM, "work", PLACE, LARGE]);
        figures(&mut command)
    }

    /// In a pod with this share.
    fn fairing(&self, share: &str, place: &str, asked: &str) -> Result<Worked> {
        let mut command = Command::new(self.path("bin/fairing"));
        command.args(["--dir", &self.path("store"), "run", "--rm", "--net=none"]);
        // Far more than any of it takes.
        command.args(["--timeout=900s", "shares", share]);
        command.args(["--exec", PROGRAM, "--", "work", place, asked]);
        figures(&mut command)
    }

    fn qemu_with_virtiofsd(&self, cache: &str) -> Result<Worked> {
        let socket = self.path("virtiofsd.socket");
        // Listened at before either is there: nobody waits for it, and once the server has ended nobody answers.
        let listener = UnixListener::bind(&socket).context("listen for QEMU")?;
        fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mut server = Command::new(VIRTIOFSD);
        server.arg(format!("--fd={}", listener.as_raw_fd()));
        server.args(["-o", &format!("source={}", self.path("data"))]);
        server.args(["-o", &format!("cache={cache}"), "-o", "xattr"]);
        let mut server = server
            .stderr(Stdio::null())
            .spawn()
            .context("start virtiofsd")?;
        drop(listener);
        let worked = self.qemu(&Server::Virtiofs(&socket), LARGE);
        // It ends with its only client; whatever became of that.
        let _ = server.kill();
        server.wait()?;
        fs::remove_file(socket)?;
        worked
    }

    fn qemu(&self, server: &Server, asked: &str) -> Result<Worked> {
        // Of the peer before.
        let _ = fs::remove_file(self.path(&format!("data/{FIGURES}")));
        let mut peer = subject::qemu_with_shares(&self.image, server, asked);
        let done = peer.output().context("start QEMU")?;
        let figures = File::open(self.path(&format!("data/{FIGURES}")));
        let figures = figures.with_context(|| format!("the peer left no figures: {done:?}"))?;
        serde_json::from_reader(figures).context("read the peer's figures")
    }
}

/// The figures that a command prints.
fn figures(command: &mut Command) -> Result<Worked> {
    let told = output(command.stdin(Stdio::null()))?;
    serde_json::from_str(&told).context("read its figures")
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("start {program}"))?;
    ensure!(status.success(), "{program} {arguments:?}: {status}");
    Ok(())
}
