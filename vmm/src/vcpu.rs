//! One virtual CPU: its loop of KVM_RUN and the few exits there are. Runs on a thread of its own, which another thread
//! can kick out of KVM_RUN by a signal.

use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::bus::Bus;
use crate::end::{End, EndNote};

/// A vCPU, ready to run.
pub struct Vcpu {
    fd: VcpuFd,
    bus: Arc<Bus>,
    note: Arc<EndNote>,
}

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs. KVM_RUN returns at once while it is not 0.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(null_mut()) };
}

/// The signal that kicks a vCPU thread.
pub fn kick_signal() -> i32 {
    SIGRTMIN()
}

/// Makes [`kick_signal`] safe to receive; once per process, before any vCPU runs.
///
/// # Errors
/// Those of sigaction.
pub fn register_kick() -> Result<()> {
    extern "C" fn on_kick(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let flag = IMMEDIATE_EXIT.with(Cell::get);
        if !flag.is_null() {
            #[expect(
                unsafe_code,
                reason = "the flag lies in the page that KVM shares with us"
            )]
            // SAFETY: a pointer that is not null points into the mapping of the vCPU that this very thread is running;
            // it is taken away before that vCPU is. The kernel only reads the byte.
            unsafe { AtomicU8::from_ptr(flag) }.store(1, Ordering::SeqCst);
        }
    }
    register_signal_handler(kick_signal(), on_kick).context("register the signal that stops vCPUs")
}

impl Vcpu {
    /// A vCPU that runs until `note` has an end: its own, or, upon a kick, another's.
    pub fn new(fd: VcpuFd, bus: Arc<Bus>, note: Arc<EndNote>) -> Self {
        Self { fd, bus, note }
    }

    /// Runs the guest. Returns how often it came back to us.
    ///
    /// No kick is lost: the end is noted before the signal is sent. A signal that arrives before the flag's address is
    /// known is seen by the look at the note; one that arrives later sets the flag, so that KVM_RUN returns.
    pub fn run(mut self) -> u64 {
        let mut exits = 0;
        IMMEDIATE_EXIT.set(&raw mut self.fd.get_kvm_run().immediate_exit);
        while !self.note.is_set() {
            exits += 1;
            if let Some(end) = self.step() {
                self.note.set(end);
            }
        }
        IMMEDIATE_EXIT.set(null_mut());
        exits
    }

    /// Runs the guest to its next exit, and serves that.
    fn step(&mut self) -> Option<End> {
        let failure = match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => return self.bus.write_port(port, data),
            Ok(VcpuExit::IoIn(port, data)) => {
                self.bus.read_port(port, data);
                return None;
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                self.bus.write(address, data);
                return None;
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.bus.read(address, data);
                return None;
            }
            Ok(VcpuExit::Intr) => return None,
            Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => return None,
            Ok(VcpuExit::Shutdown) => return Some(End::TripleFault),
            Ok(VcpuExit::InternalError) => None,
            Ok(exit) => Some(format!("unexpected exit {exit:?}")),
            Err(error) => Some(format!("KVM_RUN: {error}")),
        };
        let reason = failure.unwrap_or_else(|| self.internal_error());
        Some(End::KvmFailed {
            reason,
            registers: self.registers(),
        })
    }

    fn internal_error(&mut self) -> String {
        #[expect(unsafe_code, reason = "kvm_run is a union by exit reason")]
        // SAFETY: the last exit was KVM_EXIT_INTERNAL_ERROR, which fills this member; it is plain integers.
        let suberror = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
        match suberror {
            kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => {
                "internal error: an instruction it cannot emulate".to_owned()
            }
            other => format!("internal error {other}"),
        }
    }

    fn registers(&self) -> String {
        let general = self.fd.get_regs().map(|general| format!("{general:x?}"));
        let special = self.fd.get_sregs().map(|s| {
            let (cr0, cr2, cr3, cr4, efer) = (s.cr0, s.cr2, s.cr3, s.cr4, s.efer);
            let cs = s.cs.selector;
            format!("cr0 {cr0:x} cr2 {cr2:x} cr3 {cr3:x} cr4 {cr4:x} efer {efer:x} cs {cs:x}")
        });
        let lines = [general, special].map(Result::unwrap_or_default);
        lines.join("\n")
    }
}
