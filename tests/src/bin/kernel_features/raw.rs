//! System calls that have no safe binding at hand; the only module of this program with unsafe code.
#![expect(
    unsafe_code,
    reason = "system calls without a safe binding, each on buffers that outlive the call"
)]

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// A system call whose arguments are plain numbers (0 where a pointer may be null); what is not given is 0.
pub fn call<const N: usize>(number: i64, arguments: [i64; N]) -> nix::Result<i64> {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&arguments);
    // SAFETY: the callers pass numbers and null pointers only, so the kernel touches none of our memory.
    Errno::result(unsafe { libc::syscall(number, all[0], all[1], all[2], all[3], all[4], all[5]) })
}

/// A system call of plain numbers that answers with a new descriptor.
pub fn open_descriptor<const N: usize>(number: i64, arguments: [i64; N]) -> Result<OwnedFd> {
    owned(call(number, arguments)?)
}

fn owned(descriptor: i64) -> Result<OwnedFd> {
    let descriptor = RawFd::try_from(descriptor).context("descriptor out of range")?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Writes `bytes` at offset 0 by the kernel's asynchronous I/O (io_submit) and returns what its completion says.
pub fn aio_write(descriptor: RawFd, bytes: &[u8]) -> Result<i64> {
    const IOCB_CMD_PWRITE: u64 = 1;
    let mut context: u64 = 0;
    // struct iocb: data, key and flags, opcode, descriptor, buffer, length, offset, and three words unused here.
    let descriptor = u64::try_from(descriptor)?;
    let request: [u64; 8] = [
        0,
        0,
        IOCB_CMD_PWRITE | descriptor << 32,
        address(bytes)?,
        u64::try_from(bytes.len())?,
        0,
        0,
        0,
    ];
    let requests = [request.as_ptr()];
    // struct io_event: data, request, result, second result.
    let mut event = [0i64; 4];
    // SAFETY: context, request, bytes and event have the kernel's layout and outlive the calls: one completion is awaited.
    unsafe {
        Errno::result(libc::syscall(libc::SYS_io_setup, 1, &raw mut context))
            .context("io_setup")?;
        Errno::result(libc::syscall(
            libc::SYS_io_submit,
            context,
            1,
            requests.as_ptr(),
        ))
        .context("io_submit")?;
        let no_timeout = std::ptr::null::<libc::timespec>();
        Errno::result(libc::syscall(
            libc::SYS_io_getevents,
            context,
            1,
            1,
            event.as_mut_ptr(),
            no_timeout,
        ))
        .context("io_getevents")?;
        Errno::result(libc::syscall(libc::SYS_io_destroy, context)).context("io_destroy")?;
    }
    Ok(event[2])
}

/// Queues `entry`; its buffers must live until its completion has been seen.
pub fn submit(ring: &mut io_uring::IoUring, entry: &io_uring::squeue::Entry) -> Result<()> {
    // SAFETY: the one caller waits for the completion before it drops the buffer.
    unsafe { ring.submission().push(entry) }.context("submission queue is full")
}

/// Maps one huge page of 2 MiB and writes to it.
pub fn touch_huge_page() -> Result<()> {
    let length = NonZeroUsize::new(2 << 20).context("length")?;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB;
    // SAFETY: a fresh anonymous mapping, written within its length and unmapped again.
    unsafe {
        let page = mmap_anonymous(
            None,
            length,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            flags,
        )
        .context("mmap with MAP_HUGETLB")?;
        page.cast::<u8>().write_volatile(1);
        munmap(page, length.get()).context("munmap")
    }
}

/// Makes, uses and removes one System V shared memory segment.
pub fn sysv_shared_memory() -> Result<()> {
    // SAFETY: the segment has 4096 bytes, is written within them, detached and removed.
    unsafe {
        let segment =
            Errno::result(libc::shmget(libc::IPC_PRIVATE, 4096, 0o600)).context("shmget")?;
        let place = libc::shmat(segment, std::ptr::null(), 0);
        let removed = Errno::result(libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()));
        anyhow::ensure!(place.addr() != usize::MAX, "shmat: {}", Errno::last());
        place.cast::<u8>().write_volatile(1);
        Errno::result(libc::shmdt(place)).context("shmdt")?;
        removed.context("shmctl").map(drop)
    }
}

/// Sends one message through a System V queue and returns what came out.
pub fn sysv_message(text: [u8; 8]) -> Result<[u8; 8]> {
    #[repr(C)]
    struct Message {
        kind: libc::c_long,
        text: [u8; 8],
    }
    let sent = Message { kind: 1, text };
    let mut received = Message {
        kind: 0,
        text: [0; 8],
    };
    // SAFETY: both messages have the layout of struct msgbuf with 8 bytes of text, the length that is passed.
    unsafe {
        let queue = Errno::result(libc::msgget(libc::IPC_PRIVATE, 0o600)).context("msgget")?;
        Errno::result(libc::msgsnd(queue, (&raw const sent).cast(), 8, 0)).context("msgsnd")?;
        Errno::result(libc::msgrcv(queue, (&raw mut received).cast(), 8, 0, 0))
            .context("msgrcv")?;
        Errno::result(libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut()))
            .context("msgctl")?;
    }
    Ok(received.text)
}

/// Makes and removes a set of `count` System V semaphores.
pub fn sysv_semaphores(count: i32) -> Result<()> {
    // SAFETY: no memory of ours is passed.
    unsafe {
        let set = Errno::result(libc::semget(libc::IPC_PRIVATE, count, 0o600)).context("semget")?;
        Errno::result(libc::semctl(set, 0, libc::IPC_RMID))
            .context("semctl")
            .map(drop)
    }
}

/// Adds a key of 4 bytes to the process keyring.
pub fn add_key() -> Result<i64> {
    const KEY_SPEC_PROCESS_KEYRING: i64 = -2;
    let (kind, name, payload) = (c"user", c"fairing-test", [0u8; 4]);
    // SAFETY: two terminated strings and a payload of the length that is passed.
    let key = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            name.as_ptr(),
            payload.as_ptr(),
            4,
            KEY_SPEC_PROCESS_KEYRING,
        )
    };
    Errno::result(key).context("add_key")
}

/// Loads an eBPF program of the given type (`BPF_PROG_TYPE_*`).
pub fn bpf_load(program_type: u32, instructions: &[u64]) -> Result<OwnedFd> {
    const BPF_PROG_LOAD: i64 = 5;
    let count = u32::try_from(instructions.len())?;
    let mut attributes = Vec::new();
    attributes.extend(program_type.to_ne_bytes());
    attributes.extend(count.to_ne_bytes());
    attributes.extend(address(instructions)?.to_ne_bytes());
    attributes.extend(address(c"GPL".to_bytes_with_nul())?.to_ne_bytes());
    attributes.resize(48, 0); // no log, no flags
    owned(bpf(BPF_PROG_LOAD, &mut attributes).context("load the program")?)
}

/// Attaches a loaded program to a cgroup folder.
pub fn bpf_attach(cgroup: impl AsFd, program: impl AsFd, attach_type: u32) -> Result<()> {
    const BPF_PROG_ATTACH: i64 = 8;
    let target = cgroup.as_fd().as_raw_fd().to_ne_bytes();
    let program = program.as_fd().as_raw_fd().to_ne_bytes();
    let mut attributes = [target, program, attach_type.to_ne_bytes(), [0; 4]].concat();
    bpf(BPF_PROG_ATTACH, &mut attributes)
        .context("attach the program")
        .map(drop)
}

fn bpf(command: i64, attributes: &mut [u8]) -> nix::Result<i64> {
    // SAFETY: the kernel reads `attributes` within the length passed, and what it points at is borrowed by our callers.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            attributes.len(),
        )
    })
}

/// An ioctl on a buffer; the callers' buffers have the size of the request's structure.
pub fn ioctl(descriptor: impl AsFd, request: u64, buffer: &mut [u8]) -> nix::Result<i32> {
    // SAFETY: the callers pass buffers at least as long as the structure that `request` reads and writes.
    Errno::result(unsafe {
        libc::ioctl(descriptor.as_fd().as_raw_fd(), request, buffer.as_mut_ptr())
    })
}

/// Reads a socket option that is a structure as long as `value`.
pub fn socket_option(socket: impl AsFd, level: i32, name: i32, value: &mut [u8]) -> Result<()> {
    let mut length = libc::socklen_t::try_from(value.len())?;
    // SAFETY: the kernel writes at most `length` bytes.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(status).context("getsockopt").map(drop)
}

fn address<T>(slice: &[T]) -> Result<u64> {
    u64::try_from(slice.as_ptr().expose_provenance()).context("address out of range")
}
