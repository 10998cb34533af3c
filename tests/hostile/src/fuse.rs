//! Requests of a file system's guest as no kernel would make them, or as one would: linux/fuse.h, version 7.39.

pub mod names;

/// What is asked, in FUSE's own names and numbers.
#[expect(missing_docs, reason = "FUSE's own names")]
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const CREATE: u32 = 35;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
}

/// The node of the root.
pub const ROOT_ID: u64 = 1;
/// Of what SETATTR changes: the size.
pub const FATTR_SIZE: u32 = 1 << 3;
/// Of what INIT offers.
pub const SUBMOUNTS: u32 = 1 << 27;

/// A request of root's about `node`, with a body of numbers and names.
pub fn request(opcode: u32, node: u64, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let length = u32::try_from(40 + body.len()).expect("a request of less than 4 GiB");
    // struct fuse_in_header: what comes before these numbers; then uid, gid, pid, extensions.
    let header = [half([length, opcode]), whole([1, node]), vec![0; 16]];
    [header.concat(), body].concat()
}

/// Numbers of 32 bits.
pub fn half<const N: usize>(numbers: [u32; N]) -> Vec<u8> {
    numbers.map(u32::to_le_bytes).concat()
}

/// Numbers of 64 bits.
pub fn whole<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.map(u64::to_le_bytes).concat()
}

/// What INIT has to say: the version and what the guest can do.
pub fn init(flags: u32) -> Vec<u8> {
    request(opcode::INIT, 0, &[&half([7, 39, 0, flags])])
}

/// The body of READ and its like, and the head of WRITE's: `size` bytes at `offset` of what is open as `handle`.
pub fn place(handle: u64, offset: u64, size: u32) -> Vec<u8> {
    [whole([handle, offset]), half([size, 0]), whole([0, 0])].concat()
}
