//! A thread of another process, made to call the kernel: what it may do is tried from where it is, with the filters, ids and
//! namespaces that it has.
//!
//! ptrace(2). A call that a seccomp filter traps shows as SIGSYS before the thread hears of it; kept from it, the thread goes on.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use nix::libc::{c_long, user_regs_struct};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// `syscall` of x86_64.
const INSTRUCTION: [u8; 2] = [0x0f, 0x05];

/// Below the stack pointer: beyond the red zone, room for a path.
const SCRATCH: u64 = 8192;

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A filter trapped it.
    Trapped,
    /// The kernel's answer: an error number below zero.
    Answered(i64),
}

/// A thread that is stopped.
pub struct Tracee {
    thread: Pid,
    before: user_regs_struct,
    instruction: u64,
    memory: File,
}

impl Tracee {
    /// Stops thread `thread` of process `process`. Where it was is given back to it when this is dropped.
    #[track_caller]
    pub fn stop(process: u32, thread: u32) -> Self {
        let instruction = find_instruction(process);
        let memory = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{process}/mem"));
        let thread = Pid::from_raw(thread.cast_signed());
        ptrace::seize(thread, ptrace::Options::empty()).expect("the thread can be traced");
        ptrace::interrupt(thread).expect("the thread is traced");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("the thread stops");
        Self {
            thread,
            before: ptrace::getregs(thread).expect("registers of a stopped thread"),
            instruction,
            memory: memory.expect("memory of a traced process"),
        }
    }

    /// Has the thread make system call `number`.
    #[track_caller]
    pub fn call(&mut self, number: c_long, arguments: [u64; 6]) -> Outcome {
        self.prepare(number, arguments);
        loop {
            ptrace::step(self.thread, None).expect("the thread is stopped");
            match self.wait() {
                Signal::SIGSYS => {
                    // The trap of the step is still due: without this call, which every thread may make, it would end the
                    // process.
                    self.call(nix::libc::SYS_getpid, [0; 6]);
                    return Outcome::Trapped;
                }
                Signal::SIGTRAP => {
                    let now = ptrace::getregs(self.thread).expect("registers of a stopped thread");
                    // A trap that was still due from the step before comes first.
                    if now.rip != self.instruction {
                        return Outcome::Answered(now.rax.cast_signed());
                    }
                }
                // Kicks of a vCPU and the like: the thread is not where it could use them.
                _ => {}
            }
        }
    }

    /// The same with `path` as the argument of number `place`.
    #[track_caller]
    pub fn call_on(
        &mut self,
        number: c_long,
        path: &str,
        place: usize,
        mut arguments: [u64; 6],
    ) -> Outcome {
        let address = self.before.rsp - SCRATCH;
        let path = [path.as_bytes(), b"\0"].concat();
        self.memory
            .write_all_at(&path, address)
            .expect("room on the thread's stack");
        arguments[place] = address;
        self.call(number, arguments)
    }

    /// Has the thread make a call, and hear of it if it is trapped; then lets go of it.
    #[track_caller]
    pub fn call_untraced(mut self, number: c_long) {
        self.prepare(number, [0; 6]);
        ptrace::detach(self.thread, None).expect("the thread is stopped");
        std::mem::forget(self);
    }

    fn prepare(&mut self, number: c_long, arguments: [u64; 6]) {
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        let registers = user_regs_struct {
            rip: self.instruction,
            rax: number.cast_unsigned(),
            // Nothing is there to be called again after a signal.
            orig_rax: u64::MAX,
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            ..self.before
        };
        ptrace::setregs(self.thread, registers).expect("registers of a stopped thread");
    }

    #[track_caller]
    fn wait(&self) -> Signal {
        match waitpid(self.thread, Some(WaitPidFlag::__WALL)).expect("the thread is traced") {
            WaitStatus::Stopped(_, signal) | WaitStatus::PtraceEvent(_, signal, _) => signal,
            status => panic!("the thread has ended: {status:?}"),
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // A thread that has ended since has nothing to go back to.
        let _ = ptrace::setregs(self.thread, self.before);
        let _ = ptrace::detach(self.thread, None);
    }
}

/// Where the process has a system call instruction in its program's code.
fn find_instruction(process: u32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("the process is there");
    let code = maps
        .lines()
        .find(|line| line.contains(" r-xp "))
        .expect("a process has code");
    let (range, _) = code.split_once(' ').expect("a range");
    let address = |text: &str| u64::from_str_radix(text, 16).expect("an address");
    let (start, end) = range.split_once('-').expect("a range");
    let (start, end) = (address(start), address(end));
    let mut bytes = vec![0; usize::try_from(end - start).expect("a size")];
    let memory = File::open(format!("/proc/{process}/mem")).expect("memory of the process");
    memory
        .read_exact_at(&mut bytes, start)
        .expect("code can be read");
    let at = bytes.windows(2).position(|bytes| bytes == INSTRUCTION);
    start + at.expect("a static program calls the kernel") as u64
}
