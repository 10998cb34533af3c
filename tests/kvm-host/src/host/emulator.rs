//! The emulator: QEMU, in a copy that is mended where its emulation of SVM has a fault that hangs guests of the emulated KVM.
//!
//! When VMRUN injects an interrupt, QEMU 7.2 (`helper_vmrun`, target/i386/tcg/sysemu/svm_helper.c) delivers it and leaves its
//! number behind as the processor's pending exception. If the processor's loop is left before the guest's next exit, for a
//! timer or for another thread, the number passes for an exception and is delivered again, even where interrupts are off:
//! a kernel then waits for the lock of an interrupt that it holds itself. The copy lacks the store of that number.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const NAME: &str = "qemu-system-x86_64";

/// The instructions in Debian 12's QEMU: the vector into a register, the error code stored, the number stored, and what says
/// that it is no software interrupt.
const FAULT: [u8; 24] = [
    0x41, 0x0f, 0xb6, 0xf4, // movzbl %r12b,%esi
    0x44, 0x89, 0xab, 0x80, 0x33, 0x00, 0x00, // mov %r13d,0x3380(%rbx)
    0x89, 0xb3, 0x54, 0xef, 0xff, 0xff, // mov %esi,-0x10ac(%rbx)
    0xc7, 0x83, 0x84, 0x33, 0x00, 0x00, 0x00, // movl $0x0,0x3384(%rbx)
];
/// Where the number is stored, and what stands there in the copy.
const STORE: usize = 11;
const NOTHING: [u8; 6] = [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00]; // nopw 0x0(%rax,%rax,1)

/// The program to run; a copy lies in `folder`. A QEMU that does not have these instructions is run as it is.
///
/// # Errors
/// If there is no QEMU, or the copy cannot be made.
pub fn prepare(folder: &Path) -> Result<PathBuf> {
    let installed = find().with_context(|| format!("{NAME} is nowhere in PATH"))?;
    let bytes = fs::read(&installed);
    let mut bytes = bytes.with_context(|| format!("read {}", installed.display()))?;
    if !mend(&mut bytes) {
        return Ok(installed);
    }
    let copy = folder.join("emulator");
    lay_out(&installed, &bytes, &copy).with_context(|| format!("make {}", copy.display()))
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(NAME));
    places.find(|place| place.is_file())
}

/// Takes the fault away, if it is there and nowhere else.
fn mend(program: &mut [u8]) -> bool {
    let mut places = program.windows(FAULT.len()).enumerate();
    let mut places = places.by_ref().filter(|(_, bytes)| *bytes == FAULT);
    let (Some((at, _)), None) = (places.next(), places.next()) else {
        return false;
    };
    let store = at + STORE;
    program[store..store + NOTHING.len()].copy_from_slice(&NOTHING);
    true
}

/// Beside the copy lie links to where QEMU looks for its firmware and modules, relative to itself.
fn lay_out(installed: &Path, bytes: &[u8], copy: &Path) -> Result<PathBuf> {
    let bin = installed.parent().context("it lies nowhere")?;
    fs::create_dir_all(copy.join("bin"))?;
    for beside in ["lib", "share"] {
        symlink(bin.join("..").join(beside), copy.join(beside))?;
    }
    let program = copy.join("bin").join(NAME);
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o755);
    options.open(&program)?.write_all(bytes)?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mend_takes_the_store_and_nothing_else() {
        let mut program = [&[0xaa; 5][..], &FAULT, &[0xbb; 5]].concat();
        let before = program.clone();
        assert!(mend(&mut program));
        let store = 5 + STORE..5 + STORE + NOTHING.len();
        assert_eq!(program[store.clone()], NOTHING);
        program[store.clone()].copy_from_slice(&before[store]);
        assert_eq!(program, before);
    }

    #[test]
    fn mend_leaves_a_program_that_is_not_known() {
        for mut program in [vec![0; 100], [FAULT, FAULT].concat()] {
            let before = program.clone();
            assert!(!mend(&mut program));
            assert_eq!(program, before);
        }
    }
}
