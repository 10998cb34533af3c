//! What system tests share: the built `fairing`, a store of their own, and a deadline on everything they start.
//!
//! They drive the built programs only, on a host with KVM (`scripts/system-tests`); what is missing fails them.

pub mod home;
pub mod leftovers;
pub mod mounted;
pub mod pod;
pub mod random;
pub mod registry;
pub mod rkt;
pub mod running;
pub mod sandbox;
pub mod systemd;
pub mod tracee;
pub mod trials;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// How long any one command may take, on an emulated host whose machine has other work too.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// Shell that fails with 99 unless it runs on a pod's own kernel: only that one names its devices on its command line.
const PROOF: &str = "grep -q virtio_mmio.device=4K@0xd0000000 /proc/cmdline || exit 99; ";

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code, or 128 and the signal.
    pub code: i32,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// Stdout as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stderr as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// What its line `KEY=VALUE` on stdout says of `key`.
    #[track_caller]
    pub fn value(&self, key: &str) -> String {
        let (out, prefix) = (self.out(), format!("{key}="));
        let mut values = out.lines().filter_map(|line| line.strip_prefix(&*prefix));
        let value = values.next();
        value
            .unwrap_or_else(|| panic!("no {key} in {out}"))
            .to_owned()
    }

    /// Fails the test unless the code was `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "stdout: {}\nstderr: {}",
            self.out(),
            self.err()
        );
        self
    }
}

/// How often a test does something: `short`, or `long` in the long run (`scripts/test --long`). Prints it.
pub fn rounds(what: &str, short: usize, long: usize) -> usize {
    let is_long = std::env::var("FAIRING_LONG").is_ok_and(|value| value == "1");
    let rounds = if is_long { long } else { short };
    tell(&format!(
        "{what}: {rounds} (short run {short}, long run {long})"
    ));
    rounds
}

/// Prints a figure that is to be seen although the test passes: the harness captures only what macros print.
pub fn tell(figure: &str) {
    let _ = writeln!(std::io::stdout(), "{figure}");
}

/// The checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lies in the checkout")
        .to_owned()
}

/// A test image made by scripts/test-images.
pub fn test_image(name: &str) -> PathBuf {
    let folder = std::env::var_os("FAIRING_TEST_IMAGES")
        .expect("FAIRING_TEST_IMAGES: run scripts/system-tests");
    let path = Path::new(&folder).join(name);
    assert!(
        path.exists(),
        "test image {} is missing: run scripts/test-images",
        path.display()
    );
    path
}

/// An installation with a store, which the tests of one program share: made anew when it is first asked for. Programs
/// run one after the other, so the one before has no use for its own any more.
fn installation() -> &'static Path {
    static INSTALLATION: OnceLock<PathBuf> = OnceLock::new();
    INSTALLATION.get_or_init(|| {
        let root = PathBuf::from("/var/tmp/fairing-tests");
        if root.exists() {
            std::fs::remove_dir_all(&root).expect("an old installation can be removed");
        }
        for (from, to) in [("fairing", "bin"), ("stage1-kvm", "lib/fairing")] {
            let (from, to) = (checkout().join("target").join(from), root.join(to));
            assert!(
                from.exists(),
                "{} is missing: run scripts/pack",
                from.display()
            );
            std::fs::create_dir_all(&to).expect("room for an installation");
            let copied = Command::new("cp")
                .args(["-a", "--sparse=always"])
                .args([from, to])
                .status();
            assert!(copied.expect("cp runs").success());
        }
        configure(&root.join("etc"));
        root
    })
}

/// Makes `folder` the configuration of a host whose pods are on no network unless they ask for one: the plugins of those that are
/// take seconds on an emulated host, and tests of networks ask.
pub fn configure(folder: &Path) {
    std::fs::create_dir(folder).expect("room for a configuration");
    std::fs::write(folder.join("config.toml"), "net = \"none\"\n").expect("room for it");
}

/// The store of the installation.
pub fn store() -> PathBuf {
    installation().join("store")
}

/// `fairing --dir STORE`.
pub fn fairing() -> Command {
    fairing_in(&store())
}

/// `fairing --dir STORE` with a store of the test's own.
pub fn fairing_in(store: &Path) -> Command {
    let mut command = Command::new(installation().join("bin/fairing"));
    command.arg("--dir").arg(store).stdin(Stdio::null());
    command
        .arg("--system-config")
        .arg(installation().join("etc"));
    command
}

/// `fairing --dir STORE` with the store that holds the image `runtimes`, which scripts/system-tests imports beforehand, on
/// the machine itself: emulated, that takes minutes.
pub fn fairing_with_runtimes() -> Command {
    let store = std::env::var_os("FAIRING_TEST_RUNTIMES")
        .expect("FAIRING_TEST_RUNTIMES: run scripts/system-tests");
    let mut command = Command::new(checkout().join("target/fairing"));
    command.arg("--dir").arg(store).stdin(Stdio::null());
    command
        .arg("--system-config")
        .arg(installation().join("etc"));
    command
}

/// The folder of the only image in the data directory `dir`.
#[track_caller]
fn image_folder(dir: &Path) -> PathBuf {
    let images = std::fs::read_dir(dir.join("store/images")).expect("a store");
    let mut folders = images.map(|image| image.expect("an image").path());
    let folder = folders.next().expect("an image");
    assert_eq!(folders.next(), None, "more than one image");
    folder
}

/// The id of the only image in the data directory `dir`.
#[track_caller]
pub fn image_id(dir: &Path) -> String {
    let folder = image_folder(dir);
    let id = folder.file_name().and_then(|id| id.to_str());
    id.expect("an id").to_owned()
}

/// The files of the only image in the data directory `dir`: its EROFS file, then those of its layers, whose data follow it.
#[track_caller]
pub fn image_files(dir: &Path) -> Vec<PathBuf> {
    let folder = image_folder(dir);
    let record = std::fs::read(folder.join("record.json")).expect("a record");
    let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    let Some(layers) = record["layers"].as_array() else {
        return vec![folder.join("rootfs.erofs")];
    };
    let layers = layers.iter().filter(|layer| layer["blocks"] != 0);
    let files = layers.map(|layer| {
        let diff_id = layer["diff_id"].as_str().expect("a digest");
        dir.join("store/layers")
            .join(diff_id.replace(':', "-"))
            .join("data")
    });
    [folder.join("index.erofs")]
        .into_iter()
        .chain(files)
        .collect()
}

/// Puts the files of the only image in the data directory `dir` into one at `disk`, as a machine has them on its disk.
///
/// # Errors
/// If they cannot be copied.
pub fn image_disk(dir: &Path, disk: &Path) -> std::io::Result<()> {
    let mut disk = std::fs::File::create(disk)?;
    for file in image_files(dir) {
        std::io::copy(&mut std::fs::File::open(file)?, &mut disk)?;
    }
    Ok(())
}

/// Has `fsck.erofs` look at the only image in the data directory `dir`.
#[track_caller]
pub fn check_image(dir: &Path) {
    let files = image_files(dir);
    let devices = files[1..]
        .iter()
        .map(|file| format!("--device={}", file.display()));
    finish(Command::new("fsck.erofs").args(devices).arg(&files[0])).expect_code(0);
}

/// Where the tests' own folders lie: on the file system of the installation, and open to every user.
pub fn temporary(prefix: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in("/var/tmp")
        .expect("a temporary folder");
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("chmod");
    folder
}

/// `fairing run OPTIONS busybox -- sh -c SCRIPT`, where SCRIPT proves first that it runs in a machine.
pub fn run_sh(options: &[&str], script: &str) -> Command {
    run_image(&test_image("busybox"), options, script)
}

/// The same with another image.
pub fn run_image(image: &Path, options: &[&str], script: &str) -> Command {
    let mut command = fairing();
    command.arg("run").args(options).arg(image);
    command.args(["--exec", "/bin/sh", "--", "-c", &proved(script)]);
    command
}

/// `script`, which proves first that it runs in a machine.
pub fn proved(script: &str) -> String {
    format!("{PROOF}{script}")
}

/// Runs `command` to its end, with `input` on stdin if there is any.
#[track_caller]
pub fn finish_with(command: &mut Command, input: Option<Vec<u8>>) -> Finished {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // A command that does not read all of it is not this thread's failure.
        thread::spawn(move || stdin.write_all(&input));
    }
    wait(child)
}

/// Runs `command` to its end.
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    finish_within(DEADLINE, command)
}

/// Runs `command` to its end, which must be a success.
#[track_caller]
pub fn succeed(command: &mut Command) -> Finished {
    finish(command).expect_code(0)
}

/// Runs `command`, whose work is long, to its end within a deadline of its own.
#[track_caller]
pub fn finish_within(deadline: Duration, command: &mut Command) -> Finished {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    wait_for(command.spawn().expect("the command starts"), deadline)
}

/// Waits for `child`, whose stdout and stderr are pipes, within the deadline.
#[track_caller]
pub fn wait(child: Child) -> Finished {
    wait_for(child, DEADLINE)
}

/// The same within a deadline of its own.
#[track_caller]
pub fn wait_for(mut child: Child, deadline: Duration) -> Finished {
    let stdout = collect(child.stdout.take().expect("stdout is a pipe"));
    let stderr = collect(child.stderr.take().expect("stderr is a pipe"));
    let pid = child.id();
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    let Ok(status) = receiver.recv_timeout(deadline) else {
        // A pod whose parent waits for it would live on, and hold its outputs open.
        let pid = pid.to_string();
        let _ = Command::new("pkill").args(["-KILL", "-P", &pid]).status();
        let _ = Command::new("kill").args(["-KILL", &pid]).status();
        let (stdout, stderr) = (
            stdout.join().expect("a reader"),
            stderr.join().expect("a reader"),
        );
        let text = String::from_utf8_lossy(&stderr);
        panic!(
            "not done after {deadline:?}; {} bytes of stdout; stderr: {text}",
            stdout.len()
        );
    };
    use std::os::unix::process::ExitStatusExt;
    let status = status.expect("the child can be waited for");
    let code = status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .expect("exit code or signal");
    Finished {
        code,
        stdout: stdout.join().expect("a reader"),
        stderr: stderr.join().expect("a reader"),
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// Waits until `fact` holds, by asking it every few milliseconds within the deadline.
#[track_caller]
pub fn wait_until(what: &str, mut fact: impl FnMut() -> bool) {
    let start = Instant::now();
    while !fact() {
        assert!(start.elapsed() < DEADLINE, "never came true: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}
