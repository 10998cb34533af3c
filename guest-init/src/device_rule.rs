//! Which devices apps may open: a BPF program on the cgroup of them all, in version 2 the only way to say so. Loaded and attached
//! once, when that cgroup is made.
//!
//! Constants and structures are those of `linux/bpf.h`.

#![expect(unsafe_code, reason = "no crate here has bpf(2)")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Cgroups below may have rules besides, as engines in a pod make them.
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_DEVCG_DEV_BLOCK: u32 = 1;
/// BPF_DEVCG_ACC_READ and BPF_DEVCG_ACC_WRITE, in the upper half.
const READ_OR_WRITE: u32 = 6 << 16;
/// Loop devices are files of the app's own; all other disks are the machine's.
const LOOP_MAJOR: u32 = 7;

/// Refuses to open disks. The context has access and type in one word, then the major number.
const RULE: [u64; 11] = [
    instruction(0x61, 0x12, 0, 0),          // r2 = access << 16 | type
    instruction(0x61, 0x13, 4, 0),          // r3 = major
    instruction(0xb7, 0x00, 0, 1),          // r0 = 1, which allows
    instruction(0x15, 0x03, 6, LOOP_MAJOR), // return if r3 is that
    instruction(0xbf, 0x24, 0, 0),          // r4 = r2
    instruction(0x57, 0x04, 0, 0xffff),     // r4 &= the type's half
    instruction(0x55, 0x04, 3, BPF_DEVCG_DEV_BLOCK), // return if r4 is not that
    instruction(0x57, 0x02, 0, READ_OR_WRITE), // r2 &= those
    instruction(0x15, 0x02, 1, 0),          // return if neither: nodes may be made
    instruction(0xb7, 0x00, 0, 0),          // r0 = 0, which refuses
    instruction(0x95, 0x00, 0, 0),          // return r0
];

/// `struct bpf_insn`.
const fn instruction(code: u8, registers: u8, offset: u16, immediate: u32) -> u64 {
    code as u64 | (registers as u64) << 8 | (offset as u64) << 16 | (immediate as u64) << 32
}

/// Puts all processes of `cgroup` under the rule.
pub fn attach(cgroup: &File) -> io::Result<()> {
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: *const u64,
        license: *const libc::c_char,
    }
    let load = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(RULE.len()).map_err(io::Error::other)?,
        insns: RULE.as_ptr(),
        license: c"".as_ptr(),
    };
    let program = bpf(BPF_PROG_LOAD, &load)?;
    // SAFETY: a new descriptor, which nobody else knows.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let attach = [
        cgroup.as_raw_fd().cast_unsigned(),
        program.as_raw_fd().cast_unsigned(),
        BPF_CGROUP_DEVICE,
        BPF_F_ALLOW_MULTI,
    ];
    bpf(BPF_PROG_ATTACH, &attach).map(drop)
}

/// bpf(2), whose attributes are the beginning of a union.
fn bpf<T>(command: u32, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `attributes` as long as they are, and what the two commands point to, which is constant.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    i32::try_from(Errno::result(done)?).map_err(io::Error::other)
}
