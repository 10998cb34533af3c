//! What stage 1 and guest-init say to each other over vsock.
//!
//! The guest dials, always: it listens nowhere. Its first connection, to [`CONTROL_PORT`] of the host, is the control
//! stream: length-prefixed JSON, [`ToHost`] one way and [`ToGuest`] the other. Every other stream is plain bytes on a
//! connection to the port that the host named for it in a control message, and is good for one connection.
//!
//! A pod in order:
//! 1. guest: `Hello`; host: `Boot` (what a machine needs before any app: name, clock, entropy, CPUs, scratch disk).
//! 2. host: `Start` for each app; guest: connects the app's streams, then `Started` or `NotStarted`.
//! 3. host: `Enter` for each command that somebody runs inside a running app; answered as `Start` is.
//! 4. host: `Signal`, `Resize`, `Cpus` as they come.
//! 5. an app or command ends: the guest drains its pipes, half-closes its streams, sends `Exited`.
//! 6. `Remove` for an app that has ended and is not to run again; answered as `Start` is.
//! 7. the host has written the last byte of every stream and recorded the status: `PowerOff`. The guest syncs and
//!    writes its code to the port that ends the machine.

use std::io::{self, Read, Write};

use netlink::{Address, Neighbour, Route};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Version of this protocol; stage 1 and its initramfs are packed together, so a mismatch is a packing fault.
pub const VERSION: u32 = 9;

/// The host's vsock port of the control stream.
pub const CONTROL_PORT: u32 = 1;

/// The lowest host port used for plain streams.
pub const FIRST_STREAM_PORT: u32 = 1024;

/// The largest control message, in bytes of JSON. A longer length prefix ends the connection.
pub const MAX_MESSAGE_BYTES: u32 = 4 << 20;

/// Size of the length before each control message.
const PREFIX_BYTES: usize = size_of::<u32>();

/// The largest message and its length, bytes: who has so much of a stream has a whole message.
pub const MAX_FRAME_BYTES: usize = MAX_MESSAGE_BYTES as usize + PREFIX_BYTES;

/// The I/O port to which guest-init writes one byte to end the machine.
pub const END_PORT: u16 = 0x600;

/// The byte on [`END_PORT`] that says: ended in order.
pub const END_POWERED_OFF: u8 = 0x01;

/// The byte on [`END_PORT`] that says: guest-init could not go on; the reason went to the console or the control stream.
pub const END_INIT_FAILED: u8 = 0x02;

/// Spacing of images on the images disk: image `n` starts at byte `n * IMAGE_SLOT_BYTES`.
pub const IMAGE_SLOT_BYTES: u64 = 64 << 30;

/// The most shares of a pod at a time.
pub const MAX_SHARES: u16 = 256;

/// How many images fit on the images disk, whose capacity is constant.
pub const IMAGE_SLOTS: u8 = 128;

/// Number of a running app or of a command entered into one: the host's choice, never used twice in a machine.
pub type TaskId = u32;

/// Messages from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGuest {
    /// Makes the booted machine this pod's machine.
    Boot(Box<Boot>),
    /// Launches an app.
    Start {
        /// What both sides call it from now on.
        task: TaskId,
        /// What it is.
        app: Box<App>,
    },
    /// Runs a command inside a running app.
    Enter {
        /// What both sides call it from now on.
        task: TaskId,
        /// What it is.
        entry: Box<Entry>,
    },
    /// Removes what an app that has ended left in the machine: its writable layers, its cgroup and its image's partition. The
    /// removal is a task without streams.
    Remove {
        /// What both sides call it from now on.
        task: TaskId,
        /// What it left.
        left: Left,
    },
    /// Sends a signal to a task's first process.
    Signal {
        /// Which task.
        task: TaskId,
        /// Linux signal number, 1 to 64.
        signal: i32,
    },
    /// The terminal of a task has a new size.
    Resize {
        /// Which task.
        task: TaskId,
        /// The new size.
        window: Window,
    },
    /// So many CPUs are to be online from now on, the boot CPU included.
    Cpus(u8),
    /// All output has been written and all statuses recorded on the host: end the machine.
    PowerOff,
}

/// Messages from the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToHost {
    /// First message: guest-init is ready for `Boot`.
    Hello {
        /// [`VERSION`] of the guest's side.
        version: u32,
    },
    /// The task's first instruction is about to run: execve succeeded.
    Started {
        /// Which task.
        task: TaskId,
    },
    /// The task could not be launched, and every byte of what its pre-start handler wrote has been sent. It has no
    /// further messages.
    NotStarted {
        /// Which task.
        task: TaskId,
        /// 127 command not found, 126 found but not executable, a failed handler's own, 254 anything else.
        code: u8,
        /// The chain of causes, one line.
        reason: String,
    },
    /// The task has ended and every byte of its output has been sent.
    Exited {
        /// Which task.
        task: TaskId,
        /// How it ended.
        status: Status,
        /// Whether the kernel killed a process of the app because the app's memory was used up.
        memory_exceeded: bool,
    },
    /// guest-init cannot go on; the machine ends after this message.
    Failed {
        /// The chain of causes, one line.
        reason: String,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It exited with this code.
    Code(u8),
    /// This signal killed it.
    Signal(u8),
}

/// What the machine needs before any app. Nothing pod-specific reaches the guest before this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Host name of the pod's UTS namespace.
    pub hostname: String,
    /// What every app has as /etc/resolv.conf; `None` = its image's.
    pub resolv: Option<String>,
    /// What every app has as /etc/hosts; `None` = its image's, or one with the pod's host name.
    pub hosts: Option<String>,
    /// The host's CLOCK_REALTIME, nanoseconds since the epoch.
    pub clock_ns: u64,
    /// Random bytes for the guest's pool, credited as entropy.
    pub entropy: Vec<u8>,
    /// CPUs to bring online, the boot CPU included.
    pub cpus: u8,
    /// Where the apps' writable layers live.
    pub scratch: Scratch,
    /// The network cards, in order.
    pub cards: Vec<Card>,
    /// The ways by them, in order, each with the number of its card.
    pub routes: Vec<(u8, Route)>,
    /// File systems of shared folders to mount.
    pub shares: Vec<Cache>,
    /// What all apps together may use.
    pub limits: Limits,
    /// Kernel parameters to set, by their paths below /proc/sys, in order.
    pub sysctls: Vec<(String, String)>,
    /// Whether guest-init tells its steps on the console.
    pub debug: bool,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Name of the interface; the kernel names cards in their order, as the host does.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Who is told of on its link.
    pub neighbours: Vec<Neighbour>,
}

/// Where writable layers live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scratch {
    /// On the scratch disk: an ext4 template that is grown to the size of the disk.
    Disk,
    /// On a tmpfs in the guest's memory.
    Tmpfs,
}

/// One app, resolved as far as the host can: names of users and the command are looked up in the image, in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// ACName, unique in the pod.
    pub name: String,
    /// Its root file system.
    pub root: Root,
    /// Whether the root is mounted read-only, without a writable layer.
    pub read_only_root: bool,
    /// Whether the kernel's own files in /proc and /sys are hidden or read-only.
    pub restrict_paths: bool,
    /// What its processes may do.
    pub powers: Powers,
    /// What of the machine's resources it may use.
    pub limits: Limits,
    /// Limits of each of its processes.
    pub resource_limits: Vec<ResourceLimit>,
    /// Whether `exec` is a program of guest-init's own, of which the image knows nothing. It finds the app's files as they are, and
    /// nothing is mounted or made there.
    pub built_in: bool,
    /// Command and arguments, not empty. Lookup: with a `/` first as is; with a `/` inside relative to
    /// `working_directory`; else along `search_path`.
    pub exec: Vec<String>,
    /// Folders of the image, separated by `:`, in which a bare command is looked for.
    pub search_path: String,
    /// The whole environment, in order.
    pub environment: Vec<(String, String)>,
    /// Absolute path in the image; made (0755) when missing.
    pub working_directory: String,
    /// User: `root` or decimal; a path, whose owner it is; else a name in the image's etc/passwd.
    pub user: String,
    /// Group, by the same rules. When it equals `user`, the image named a user alone: the user's primary and
    /// supplementary groups from the image apply, and a number that has no entry is its own group.
    pub group: String,
    /// Supplementary group ids.
    pub supplementary_gids: Vec<u32>,
    /// Volumes placed in it, in order.
    pub mounts: Vec<Mount>,
    /// Command and arguments run before it, to their end; empty = none.
    pub pre_start: Vec<String>,
    /// Command and arguments run after it, however it ended; empty = none.
    pub post_stop: Vec<String>,
    /// Where its stdio goes.
    pub stdio: Stdio,
}

impl App {
    /// The shares that it needs, by number, and as what.
    pub fn shares(&self) -> impl Iterator<Item = (u16, Cache)> {
        let root = match self.root {
            Root::Share(number) => Some((number, Cache::Auto)),
            Root::Image { .. } => None,
        };
        let volumes = self.mounts.iter().filter_map(|mount| match mount.volume {
            Volume::Share { number, cache } => Some((number, cache)),
            Volume::Empty { .. } | Volume::Layer => None,
        });
        root.into_iter().chain(volumes)
    }
}

/// A command that is run inside a running app, as one of its processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Name of the app.
    pub app: String,
    /// As [`App::built_in`].
    pub built_in: bool,
    /// Command and arguments, looked up as [`App::exec`] is.
    pub exec: Vec<String>,
    /// User, as [`App::user`]; `None` = the app's own user and groups.
    pub user: Option<String>,
    /// Set in addition to the app's own environment, in order.
    pub environment: Vec<(String, String)>,
    /// Absolute path in the image; `None` = the app's own.
    pub working_directory: Option<String>,
    /// Where its stdio goes.
    pub stdio: Stdio,
}

/// What an app left that has ended and is not to run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Name of the app.
    pub app: String,
    /// The image's number on the images disk, if its root was one.
    pub image: Option<u8>,
    /// Whether it had shares, of which the machine is to remember nothing.
    pub shares: bool,
    /// Empty volumes that were its own, by name.
    pub volumes: Vec<String>,
}

/// What an app's processes may do, those entered into it included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Powers {
    /// The capabilities that it can ever have, by the kernel's names (`CAP_KILL`); `None` = all.
    pub capabilities: Option<Vec<String>>,
    /// Whether no program can give it more than it has.
    pub no_new_privileges: bool,
    /// Filter of system calls: classic BPF, an instruction a number (code 16 bits, jt 8, jf 8, k 32, from the highest bits
    /// on); empty = none.
    pub seccomp: Vec<u64>,
    /// Readiness to be killed when memory runs out, -1000 to 1000.
    pub oom_score_adj: i32,
}

/// What of the machine's resources an app, or all of them, may use; `None` = as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most CPU time, thousandths of a CPU.
    pub cpu_milli: Option<u32>,
    /// Weight among the apps that want the CPU, 1 to 10000; 100 is what the others have.
    pub cpu_weight: Option<u32>,
    /// Most memory, page cache included, bytes.
    pub memory_bytes: Option<u64>,
    /// Most processes and threads.
    pub processes: Option<u32>,
    /// Most that is read from each disk in a second, and most that is written, bytes.
    pub disk_bytes: Option<u64>,
    /// Most operations on each disk in a second, reads and writes apart.
    pub disk_operations: Option<u64>,
}

impl Limits {
    /// Whether the use of disks is limited.
    pub fn are_of_disks(&self) -> bool {
        self.disk_bytes.or(self.disk_operations).is_some()
    }
}

/// A limit of each process of an app, setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// Of what.
    pub resource: Resource,
    /// In force; [`u64::MAX`] = none.
    pub soft: u64,
    /// What it can be raised to.
    pub hard: u64,
}

/// What a process can be limited in, by the names that follow `RLIMIT_`, with the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u32)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum Resource {
    As = libc::RLIMIT_AS,
    Core = libc::RLIMIT_CORE,
    Cpu = libc::RLIMIT_CPU,
    Data = libc::RLIMIT_DATA,
    Fsize = libc::RLIMIT_FSIZE,
    Locks = libc::RLIMIT_LOCKS,
    Memlock = libc::RLIMIT_MEMLOCK,
    Msgqueue = libc::RLIMIT_MSGQUEUE,
    Nice = libc::RLIMIT_NICE,
    Nofile = libc::RLIMIT_NOFILE,
    Nproc = libc::RLIMIT_NPROC,
    Rss = libc::RLIMIT_RSS,
    Rtprio = libc::RLIMIT_RTPRIO,
    Rttime = libc::RLIMIT_RTTIME,
    Sigpending = libc::RLIMIT_SIGPENDING,
    Stack = libc::RLIMIT_STACK,
}

/// Where an app's root file system comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// An image of the images disk, with a writable layer on the scratch space.
    Image {
        /// Which one, 0 to [`IMAGE_SLOTS`] - 1.
        number: u8,
        /// Its size, bytes, a multiple of 512.
        bytes: u64,
    },
    /// A folder of the host's, which is the app's own, by its number; as [`Cache::Auto`].
    Share(u16),
}

/// A volume at a place of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is there.
    pub volume: Volume,
    /// Absolute path in the app, made when missing: links in it are followed within the app's root.
    pub target: String,
    /// Whether the app cannot write there.
    pub read_only: bool,
}

/// How long the machine trusts what it knows of shared files. Each has a file system of its own, which its name is the tag
/// of; share `n` is the folder or file `n` in every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// Names and attributes for a second, contents until the file is opened anew.
    Auto,
    /// Everything, for good.
    Always,
    /// Nothing.
    None,
}

impl Cache {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::None];

    /// Its name, which is what a user calls it, too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::None => "none",
        }
    }
}

/// What is placed in an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Volume {
    /// A folder or file of the host.
    Share {
        /// Which one.
        number: u16,
        /// As what.
        cache: Cache,
    },
    /// An empty folder on the scratch space, made for the first app that has it and common to all.
    Empty {
        /// ACName, unique in the pod.
        name: String,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// What the image has there, under a writable layer on the scratch space that is the app's own.
    Layer,
}

/// An app's stdio. A port is a host port that takes one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdio {
    /// Pipes, pumped to plain streams; without a port the stream is /dev/null.
    Streams {
        /// Host to guest.
        stdin: Option<u32>,
        /// Guest to host.
        stdout: Option<u32>,
        /// Guest to host.
        stderr: Option<u32>,
    },
    /// A pty of which the app's session is the owner, both ways on one stream.
    Terminal {
        /// Both directions.
        port: u32,
        /// Its first size.
        window: Window,
    },
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// Writes one message: its length in bytes (u32, little-endian), then its JSON.
///
/// # Errors
/// Those of `stream`; `InvalidInput` for a message longer than [`MAX_MESSAGE_BYTES`].
pub fn send<M: Serialize>(mut stream: impl Write, message: &M) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len())
        .ok()
        .filter(|length| *length <= MAX_MESSAGE_BYTES);
    let length = length
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "control message too long"))?;
    stream.write_all(&[&length.to_le_bytes(), &*json].concat())
}

/// Reads one message; `None` at a clean end of the stream.
///
/// # Errors
/// Those of `stream`; `InvalidData` for a length over [`MAX_MESSAGE_BYTES`] or JSON that is no `M`; `UnexpectedEof`
/// for a stream that ends within a message.
pub fn receive<M: DeserializeOwned>(mut stream: impl Read) -> io::Result<Option<M>> {
    let mut prefix = [0; PREFIX_BYTES];
    match stream.read(&mut prefix)? {
        0 => return Ok(None),
        read => stream.read_exact(&mut prefix[read..])?,
    }
    let mut json = vec![0; checked_length(prefix)?];
    stream.read_exact(&mut json)?;
    parse(&json).map(Some)
}

/// Takes all whole messages off `bytes`, what has arrived so far of a stream; what is left is a part of the next one.
///
/// # Errors
/// `InvalidData` for a length over [`MAX_MESSAGE_BYTES`] or JSON that is no `M`.
pub fn take<M: DeserializeOwned>(bytes: &mut Vec<u8>) -> io::Result<Vec<M>> {
    let mut messages = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX_BYTES>() {
        let Some((json, next)) = after.split_at_checked(checked_length(*prefix)?) else {
            break;
        };
        messages.push(parse(json)?);
        rest = next;
    }
    // Once, not for each message: a peer that sends thousands of small ones must not have the rest moved for each.
    let taken = bytes.len() - rest.len();
    bytes.drain(..taken);
    Ok(messages)
}

fn checked_length(prefix: [u8; PREFIX_BYTES]) -> io::Result<usize> {
    let length = u32::from_le_bytes(prefix);
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("control message of {length} bytes"),
        ));
    }
    Ok(length as usize)
}

fn parse<M: DeserializeOwned>(json: &[u8]) -> io::Result<M> {
    serde_json::from_slice(json).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests;
