//! The program that a file needs to run: a script's first line, an ELF file's PT_INTERP.
//!
//! Called by `command` to name what an image lacks. Pure; anything odd is no interpreter.

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

/// System V ABI, 64-bit little-endian: e_phoff at 32, e_phentsize at 54, e_phnum at 56.
fn elf_interpreter(head: &[u8]) -> Option<String> {
    const PT_INTERP: u64 = 3;
    let (table, size, count) = (
        number(head, 32, 8)?,
        number(head, 54, 2)?,
        number(head, 56, 2)?,
    );
    let headers =
        (0..count).filter_map(|index| table.checked_add(index.checked_mul(size)?)?.try_into().ok());
    let header: usize = headers
        .into_iter()
        .find(|header| number(head, *header, 4) == Some(PT_INTERP))?;
    let offset = usize::try_from(number(head, header.checked_add(8)?, 8)?).ok()?;
    let length = usize::try_from(number(head, header.checked_add(32)?, 8)?).ok()?;
    let name = head.get(offset..offset.checked_add(length)?)?;
    Some(
        String::from_utf8_lossy(name)
            .trim_end_matches('\0')
            .to_owned(),
    )
}

fn number(bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(offset..offset.checked_add(size)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elf(interpreter: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 2 * 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
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
