//! Everything that a guest can ask about a name, and names that it should not send.

use std::path::Path;

use super::opcode::*;
use super::{half, whole};

const O_WRONLY: u32 = 1;
const O_RDWR: u32 = 2;
const O_CREAT: u32 = 0o100;
const O_TRUNC: u32 = 0o1000;

/// Bodies of an operation about a name, and about another node where there are two.
pub type Body = fn(&[u8], u64) -> Vec<Vec<u8>>;

/// Every operation that takes names.
pub const NAMED: &[(u32, Body)] = &[
    (LOOKUP, |name, _| vec![name.to_vec()]),
    (MKDIR, |name, _| vec![then(half([0o755, 0]), name)]),
    (MKNOD, |name, _| {
        let kinds = [0o100_644, 0o010_644, 0o140_644, 0o020_666, 0o060_666];
        kinds
            .map(|mode| then(half([mode, 0x103, 0, 0]), name))
            .into()
    }),
    (SYMLINK, |name, _| {
        vec![
            then(name.to_vec(), b"../secret\0"),
            then(b"soft\0".to_vec(), name),
        ]
    }),
    (LINK, |name, node| vec![then(whole([node]), name)]),
    (RENAME, |name, node| renamed(&whole([node]), name).into()),
    (RENAME2, |name, node| {
        let kinds = [0, 1, 2, 4].map(|flags| whole([node, flags]));
        kinds.iter().flat_map(|to| renamed(to, name)).collect()
    }),
    (CREATE, |name, _| {
        let flags = [O_RDWR | O_CREAT, O_WRONLY | O_TRUNC];
        flags
            .map(|flags| then(half([flags, 0o100_666, 0, 0]), name))
            .into()
    }),
    (UNLINK, |name, _| vec![name.to_vec()]),
    (RMDIR, |name, _| vec![name.to_vec()]),
    (SETXATTR, |name, _| {
        let attributes = [name.to_vec(), then(b"user.".to_vec(), name)];
        attributes
            .map(|name| then(then(half([5, 0]), &name), b"value"))
            .into()
    }),
    (GETXATTR, |name, _| vec![then(half([64, 0]), name)]),
    (REMOVEXATTR, |name, _| {
        vec![name.to_vec(), then(b"user.".to_vec(), name)]
    }),
];

/// A body, and what follows in it.
pub fn then(mut body: Vec<u8>, name: &[u8]) -> Vec<u8> {
    body.extend(name);
    body
}

/// From the name, and to it.
fn renamed(to: &[u8], name: &[u8]) -> [Vec<u8>; 2] {
    [
        [to, name, b"file\0"].concat(),
        [to, b"file\0", name].concat(),
    ]
}

const NAMES: &str = "file folder new . .. / ../.. ../secret ../../secret ../beside/victim ../1/file ../kept/file \
    folder/../../secret folder/../../../beside/new link link/ outward/file outward/victim outward/new climbing/file \
    climbing/new ../0/outward/new";

/// Honest names, and such as no kernel sends; some lead to the folder `outside`.
pub fn names(outside: &Path) -> Vec<Vec<u8>> {
    let absolute = |name: &str| format!("{}/{name}", outside.display());
    let others = [
        String::new(),
        "a".repeat(5000),
        "../".repeat(12) + &absolute("secret"),
        absolute("secret"),
        absolute("beside/victim"),
        absolute("beside/new"),
    ];
    let ended = NAMES.split(' ').chain(others.iter().map(String::as_str));
    let ended = ended.map(|name| format!("{name}\0").into_bytes());
    let odd = [
        &b"unended"[..],
        b"../secret",
        b"a\0../secret\0",
        b"\xff\xfe\0",
    ];
    ended.chain(odd.map(<[u8]>::to_vec)).collect()
}
