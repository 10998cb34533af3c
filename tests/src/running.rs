//! A command under way, whose output a test reads line by line, within the deadline.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{DEADLINE, Finished, finish, wait};

/// The command.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Running {
    /// Starts `command`; its stdin is what the command says, or with [`Running::with_stdin`] the test's own.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the command starts");
        let stdin = child.stdin.take();
        Self { child, stdin }
    }

    /// Starts `command` with a stdin that the test writes.
    #[track_caller]
    pub fn with_stdin(command: &mut Command) -> Self {
        Self::start(command.stdin(Stdio::piped()))
    }

    /// Its process; for `fairing run` that a parent does not outlive, the pod's too.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its stdout, without the end of line.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().expect("stdout is a pipe");
        match line_or_end(stdout) {
            Ok(line) => line,
            Err(before) => {
                let mut told = String::new();
                let stderr = self.child.stderr.as_mut().expect("stderr is a pipe");
                let _ = stderr.read_to_string(&mut told);
                panic!("the output has ended after {before:?}; stderr: {told}");
            }
        }
    }

    /// The next line of its stderr, without the end of line.
    #[track_caller]
    pub fn error_line(&mut self) -> String {
        let stderr = self.child.stderr.as_mut().expect("stderr is a pipe");
        line(stderr)
    }

    /// Writes to its stdin.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is a pipe");
        stdin
            .write_all(text.as_bytes())
            .expect("the command reads its stdin");
    }

    /// Closes the test's end of its stdout.
    pub fn close_stdout(&mut self) {
        let (unused, _) = std::io::pipe().expect("a pipe");
        self.child.stdout = Some(ChildStdout::from(OwnedFd::from(unused)));
    }

    /// Ends its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends it a signal, by name.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Closes its stdin, and waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        drop(self.stdin.take());
        wait(self.child)
    }
}

/// Sends a signal to a process, by name.
#[track_caller]
pub fn signal(pid: u32, name: &str) {
    finish(Command::new("kill").args(["-s", name, &pid.to_string()])).expect_code(0);
}

/// The child of process `pid`, which has one.
#[track_caller]
pub fn child_of(pid: u32) -> u32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(&path).expect("the process is there");
    let children = children.trim();
    children
        .parse()
        .unwrap_or_else(|_| panic!("children of {pid}: {children:?}"))
}

/// The next line of `from`, byte by byte: nothing after it is taken.
#[track_caller]
pub fn line(from: &mut (impl Read + AsFd)) -> String {
    line_or_end(from).unwrap_or_else(|before| panic!("the output has ended after {before:?}"))
}

/// The same, or what came before the end.
#[track_caller]
fn line_or_end(from: &mut (impl Read + AsFd)) -> Result<String, String> {
    let mut line = Vec::new();
    let begin = Instant::now();
    loop {
        let left = DEADLINE.saturating_sub(begin.elapsed()).as_millis();
        let timeout = PollTimeout::try_from(left).expect("the deadline is short");
        let ready = poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], timeout);
        let so_far = || String::from_utf8_lossy(&line).into_owned();
        assert_ne!(ready, Ok(0), "no whole line in time, only {:?}", so_far());
        let mut byte = [0];
        let read = from.read(&mut byte).expect("the output can be read");
        match byte {
            _ if read == 0 => return Err(so_far()),
            [b'\n'] => return Ok(so_far().trim_end_matches('\r').to_owned()),
            [byte] => line.push(byte),
        }
    }
}
