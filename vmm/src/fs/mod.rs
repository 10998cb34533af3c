//! The file system device: folders of the host as one file system of the guest. The file server is the virtiofsd crate's;
//! this is the device in front of it.
//!
//! Virtio 1.2, section 5.11. What the server can reach is what its process can: the caller has shut it into a root that
//! holds the shared folders and nothing else. Requests are served one after the other on the device's own thread, which
//! takes on the ids of whoever asks (by system calls that change this thread alone) and changes its working folder.

mod spec;

use std::fs::File;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtio_queue::{DescriptorChain, Queue};
use virtiofsd::descriptor_utils::{Reader, Writer};
use virtiofsd::fuse::{EntryOut, InHeader, OutHeader};
use virtiofsd::passthrough::{CachePolicy, Config, InodeFileHandlesMode, PassthroughFs};
use virtiofsd::server::Server;
use vm_memory::Bytes;

use self::spec::*;
use crate::device::{Activation, Device, Stop};
use crate::memory::GuestMemory;
use crate::mmio::spec::VIRTIO_F_INDIRECT_DESC;
use crate::requests::{self, Told};

/// Room for the largest request of Linux (1 MiB in pages) without indirect descriptors, twice.
const QUEUE_SIZE: u16 = 512;

/// Longer than any machine lives.
const FOREVER: Duration = Duration::from_hours(24 * 365 * 100);

/// How long the guest trusts what it knows of a shared file system without asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// Names and attributes for a second, contents until a file is opened anew.
    Briefly,
    /// Everything, for good.
    Always,
    /// Nothing.
    Never,
}

impl Trust {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Briefly, Self::Always, Self::Never];
}

/// What is shared, and how.
pub struct Share {
    /// Path of the folder whose content the guest sees, in the root of the process when the guest mounts it.
    pub root: String,
    /// /proc/self/fd of this process, opened with O_PATH while there was a /proc.
    pub own_descriptors: File,
    /// The most descriptors that the guest's files may take.
    pub max_descriptors: u64,
    /// How far the guest may trust what it knows of files.
    pub trust: Trust,
}

/// The device.
pub struct Fs {
    tag: [u8; TAG_BYTES],
    server: Server<PassthroughFs>,
    /// The guest is to keep in mind which names do not exist.
    keeps_missing: bool,
}

impl Fs {
    /// A device that offers `share` under the name `tag`.
    ///
    /// # Errors
    /// When the tag is too long, or the server cannot open its working folder.
    pub fn new(tag: &str, share: Share) -> Result<Self> {
        let mut bytes = [0; TAG_BYTES];
        ensure!(
            (1..=TAG_BYTES).contains(&tag.len()),
            "tag {tag:?} is empty or longer than {TAG_BYTES} bytes"
        );
        bytes[..tag.len()].copy_from_slice(tag.as_bytes());
        // Not for a second either: a file that the host makes may be a sign that the pod waits for.
        let keeps_missing = share.trust == Trust::Always;
        let (cache_policy, timeout) = match share.trust {
            Trust::Briefly => (CachePolicy::Auto, Duration::from_secs(1)),
            Trust::Always => (CachePolicy::Always, FOREVER),
            Trust::Never => (CachePolicy::Never, Duration::ZERO),
        };
        let config = Config {
            root_dir: share.root,
            proc_sfd_rawfd: Some(share.own_descriptors),
            guest_fd_limit: share.max_descriptors,
            entry_timeout: timeout,
            attr_timeout: timeout,
            cache_policy,
            // Attributes that come with a listing and are not believed are made for nothing.
            readdirplus: share.trust != Trust::Never,
            // Also where the guest keeps no contents: databases and linkers map what they write.
            allow_mmap: true,
            // A handle would reach every file of the file system.
            inode_file_handles: InodeFileHandlesMode::Never,
            xattr: true,
            announce_submounts: true,
            allow_direct_io: true,
            // The guest's kernel clears set-user-id bits otherwise, by one more request for each write.
            killpriv_v2: true,
            ..Config::default()
        };
        let server = Server::new(PassthroughFs::new(config).context("prepare the file server")?);
        Ok(Self {
            tag: bytes,
            server,
            keeps_missing,
        })
    }

    /// Carries out one request; gives the bytes of its answer, none for a request that has none.
    fn answer(&self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> u32 {
        let requested = Reader::new(memory, chain.clone()).ok();
        let answer = Writer::new(memory, chain.clone()).ok();
        let Some((request, answer)) = requested.zip(answer) else {
            return 0;
        };
        let Some(header) = sound_header(request.clone(), answer.available_bytes()) else {
            return 0;
        };
        let room = answer.clone();
        let written = self.server.handle_message(request, answer, None::<&mut ()>);
        let written = written.map_err(|error| tracing::debug!("a malformed FUSE request: {error}"));
        let mut written = written.unwrap_or(0);
        let is_lookup = header.opcode == FUSE_LOOKUP;
        if self.keeps_missing && is_lookup && written == size_of::<OutHeader>() {
            written = kept_missing(memory, chain, room).unwrap_or(written);
        }
        u32::try_from(written).unwrap_or(0)
    }
}

/// The header of a request that is as the server takes for granted: with `room` for the header of an answer, if it has one,
/// and about a place that a file can have. None of any other.
fn sound_header(mut request: Reader<'_>, room: usize) -> Option<InHeader> {
    let header: InHeader = request.read_obj().ok()?;
    let is_sound = match header.opcode {
        FUSE_FORGET | FUSE_BATCH_FORGET | FUSE_INTERRUPT | FUSE_DESTROY => true,
        _ if room < size_of::<OutHeader>() => false,
        FUSE_READ | FUSE_WRITE => {
            // The offset of a file is signed.
            let [_handle, offset]: [u64; 2] = request.read_obj().ok()?;
            i64::try_from(offset).is_ok()
        }
        _ => true,
    };
    is_sound.then_some(header)
}

/// Makes of the answer that there is no such name one that the guest's kernel keeps for good: a node of number 0. Gives its
/// bytes; none when the answer is another.
///
/// What was answered is read back, for the server's trait has forty methods to stand in front of for this one.
fn kept_missing(
    memory: &GuestMemory,
    chain: DescriptorChain<&GuestMemory>,
    mut room: Writer<'_>,
) -> Option<usize> {
    let header: OutHeader = memory.read_obj(chain.writable().next()?.addr()).ok()?;
    let bytes = size_of::<OutHeader>() + size_of::<EntryOut>();
    if header.error != -libc::ENOENT || room.available_bytes() < bytes {
        return None;
    }
    let header = OutHeader {
        len: u32::try_from(bytes).ok()?,
        error: 0,
        ..header
    };
    let entry = EntryOut {
        entry_valid: FOREVER.as_secs(),
        ..EntryOut::default()
    };
    room.write_obj(header).ok()?;
    room.write_obj(entry).ok()?;
    Some(bytes)
}

/// Gives the calling thread a working folder of its own: the server changes it to reach extended attributes.
fn own_working_folder() -> io::Result<()> {
    #[expect(unsafe_code, reason = "no binding of unshare at hand")]
    // SAFETY: the call changes the calling thread's working folder, root and umask to copies, and touches no memory.
    let done = unsafe { libc::unshare(libc::CLONE_FS) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Device for Fs {
    fn id(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn features(&self) -> u64 {
        VIRTIO_F_INDIRECT_DESC
    }

    /// One for requests that must not wait (forgets), one for all others.
    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    /// `struct virtio_fs_config`, section 5.11.4.
    fn config(&self) -> Vec<u8> {
        let mut config = self.tag.to_vec();
        config.extend(1u32.to_le_bytes()); // num_request_queues
        config
    }

    fn run(self: Box<Self>, activation: Activation, stop: &Stop) -> (Box<dyn Device>, Vec<Queue>) {
        if let Err(error) = own_working_folder() {
            let why = format!("shared folders: no working folder for their thread: {error}");
            activation.interrupt.needs_reset(&why);
            return (self, activation.into_queues());
        }
        let queues = requests::serve(
            "shared folders",
            Told::Each,
            activation,
            stop,
            |memory, chain| Some(self.answer(memory, chain)),
        );
        (self, queues)
    }
}

#[cfg(test)]
mod tests;
