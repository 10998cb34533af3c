//! The program that a file needs to run: a script's first line, an ELF file's PT_INTERP.
//!
//! Called by `command` to name what an image lacks. Pure; anything odd is no interpreter.

use elf::abi::{EI_NIDENT, PT_INTERP};
use elf::endian::LittleEndian;
use elf::file::{FileHeader, parse_ident};
use elf::segment::SegmentTable;

/// The interpreter named in the first bytes of a program.
pub fn interpreter(head: &[u8]) -> Option<String> {
    match head {
        [b'#', b'!', line @ ..] => script_interpreter(line),
        [0x7f, b'E', b'L', b'F', 2, 1, ..] => elf_interpreter(head),
        _ => None,
    }
}

fn script_interpreter(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line.split(|byte| *byte == b'\n').next()?).ok()?;
    // A carriage return stays: it is part of the name that the kernel looks for, and usually the reason.
    line.trim_matches([' ', '\t'])
        .split([' ', '\t'])
        .next()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

fn elf_interpreter(head: &[u8]) -> Option<String> {
    let (ident, rest) = head.split_at_checked(EI_NIDENT)?;
    let ident = parse_ident::<LittleEndian>(ident).ok()?;
    let file = FileHeader::parse_tail(ident, rest).ok()?;
    let table = head.get(usize::try_from(file.e_phoff).ok()?..)?;
    let segments = SegmentTable::new(file.endianness, file.class, table).iter();
    let mut segments = segments.take(file.e_phnum.into());
    let segment = segments.find(|segment| segment.p_type == PT_INTERP)?;
    let offset = usize::try_from(segment.p_offset).ok()?;
    let length = usize::try_from(segment.p_filesz).ok()?;
    let name = head.get(offset..offset.checked_add(length)?)?;
    let name = String::from_utf8_lossy(name);
    Some(name.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elf(interpreter: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 2 * 56];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = 2;
        file[64 + 56] = 3;
        file[64 + 56 + 8] = 176;
        file[64 + 56 + 32] = u8::try_from(interpreter.len()).unwrap();
        file.extend_from_slice(interpreter);
        file
    }

    #[test]
    fn interpreter_of_a_script_is_its_first_word() {
        assert_eq!(
            interpreter(b"#! /usr/bin/env\tpython3\nx").as_deref(),
            Some("/usr/bin/env")
        );
        assert_eq!(interpreter(b"#!/bin/sh\r\nx").as_deref(), Some("/bin/sh\r"));
        assert_eq!(interpreter(b"#!\n"), None);
    }

    #[test]
    fn interpreter_of_an_elf_file_is_its_loader() {
        assert_eq!(
            interpreter(&elf(b"/lib/ld-musl.so.1\0")).as_deref(),
            Some("/lib/ld-musl.so.1")
        );
    }

    #[test]
    fn interpreter_of_anything_else_is_none() {
        assert_eq!(interpreter(b"\x7fELF\x02\x01"), None);
        assert_eq!(interpreter(b"MZ"), None);
    }

    proptest! {
        #[test]
        fn interpreter_any_bytes_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = interpreter(&bytes);
            let magic = b"\x7fELF\x02\x01";
            bytes.splice(..bytes.len().min(6), magic.iter().copied());
            let _ = interpreter(&bytes);
        }
    }
}
