//! A terminal in the guest, and the user's own, which a pod borrows.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tests::pod::Pod;
use tests::running::{child_of, line, signal};
use tests::sandbox::Sandbox;
use tests::{fairing, finish, finish_with, run_sh};

/// A user's terminal: what he sees and types is read and written by the test.
struct Terminal {
    user: File,
    program: File,
}

impl Terminal {
    fn open(rows: u16, columns: u16) -> Self {
        let pair = nix::pty::openpty(None, None).expect("a pseudo-terminal");
        let terminal = Self {
            user: pair.master.into(),
            program: pair.slave.into(),
        };
        terminal.resize(rows, columns);
        terminal
    }

    fn path(&self) -> PathBuf {
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&self.program);
        fs::read_link(format!("/proc/self/fd/{descriptor}")).expect("a terminal has a name")
    }

    fn stty(&self, arguments: &[&str]) -> String {
        finish(
            Command::new("stty")
                .arg("-F")
                .arg(self.path())
                .args(arguments),
        )
        .expect_code(0)
        .out()
    }

    /// Gives it a new size, of which the kernel tells the programs in its foreground.
    fn resize(&self, rows: u16, columns: u16) {
        self.stty(&["rows", &rows.to_string(), "cols", &columns.to_string()]);
    }

    /// Starts `command` in its foreground, as a login would.
    fn start(&self, command: &Command) -> std::process::Child {
        let side = || Stdio::from(self.program.try_clone().expect("a duplicate"));
        let mut session = Command::new("setsid");
        session
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        session
            .env("TERM", "xterm")
            .stdin(side())
            .stdout(side())
            .stderr(side());
        session.spawn().expect("setsid starts")
    }

    /// Reads up to a line that ends with `text`.
    fn read_to(&mut self, text: &str) {
        while !line(&mut self.user).ends_with(text) {}
    }

    /// Sees and does what a user of [`ECHO`] on a new terminal of 33 lines would, whose mode was `before`.
    fn is_used_by_echo(&mut self, before: &str) {
        ["/dev/pts/0", "xterm", "33 99"]
            .iter()
            .for_each(|text| self.read_to(text));
        assert_ne!(self.stty(&["-g"]), before, "not in raw mode");
        self.resize(40, 120);
        self.read_to("now 40 120");
        self.type_in("\x03");
        self.read_to("caught interrupt");
        self.type_in("hello\n");
        self.read_to("got hello");
    }

    fn type_in(&mut self, text: &str) {
        self.user
            .write_all(text.as_bytes())
            .expect("a terminal takes input");
    }
}

/// Tells of interrupts and new sizes, and repeats lines.
const ECHO: &str = "trap 'echo caught interrupt' INT; trap 'echo now $(stty size)' WINCH; \
    tty; echo $TERM; stty size; while :; do read line && echo got $line; done";

#[test]
fn terminal_follows_the_users_size_and_keys_and_is_given_back_after_a_signal() {
    let mut terminal = Terminal::open(33, 99);
    let before = terminal.stty(&["-g"]);
    let mut fairing = terminal.start(&run_sh(&["-i", "-t"], ECHO));
    terminal.is_used_by_echo(&before);
    // The app catches no SIGTERM.
    signal(fairing.id(), "TERM");
    assert_eq!(fairing.wait().expect("fairing ends").code(), Some(143));
    assert_eq!(terminal.stty(&["-g"]), before);
}

#[test]
fn terminal_is_given_back_after_the_pods_process_was_killed() {
    let mut terminal = Terminal::open(24, 80);
    let before = terminal.stty(&["-g"]);
    let mut fairing = terminal.start(&run_sh(&["-i", "-t"], "echo ready; exec sleep 1000"));
    terminal.read_to("ready");
    assert_ne!(terminal.stty(&["-g"]), before, "not in raw mode");
    signal(child_of(fairing.id()), "KILL");
    terminal.read_to("killed by signal 9");
    assert_eq!(fairing.wait().expect("fairing ends").code(), Some(137));
    assert_eq!(terminal.stty(&["-g"]), before);
}

#[test]
fn command_that_enters_from_a_terminal_has_one_of_its_own() {
    let pod = Pod::start(
        &[],
        "trap 'exit 0' TERM; echo ready; while :; do usleep 10000; done",
    );
    let mut terminal = Terminal::open(33, 99);
    let before = terminal.stty(&["-g"]);
    let mut fairing = terminal.start(&pod.enter(ECHO));
    terminal.is_used_by_echo(&before);
    signal(fairing.id(), "TERM");
    assert_eq!(fairing.wait().expect("fairing ends").code(), Some(143));
    assert_eq!(terminal.stty(&["-g"]), before);
    pod.end().expect_code(0);
}

#[test]
fn app_has_no_terminal_where_the_user_has_none() {
    let finished = finish(&mut run_sh(&["-t"], "tty; exit 4")).expect_code(4);
    assert_eq!(finished.out(), "not a tty\n");
    let app = &mut run_sh(&["--interactive"], "tty; cat");
    let finished = finish_with(app, Some(b"typed".to_vec())).expect_code(0);
    assert_eq!(finished.out(), "not a tty\ntyped");
}

#[test]
fn terminal_of_an_app_is_left_by_its_keys_and_used_by_the_next_visitor() {
    let pod = Sandbox::start(&[]);
    pod.add("shell", &["-i", "-t"], ECHO).expect_code(0);
    pod.does("start", "shell");
    // It is ready for new sizes once it has told of its first, which is nobody's.
    tests::wait_until("the shell is ready", || pod.logs("shell").contains("24 80"));
    let mut attach = fairing();
    attach.args(["attach", pod.uuid()]);
    for visit in ["first", "second"] {
        let mut terminal = Terminal::open(33, 99);
        let before = terminal.stty(&["-g"]);
        let mut visitor = terminal.start(&attach);
        terminal.read_to("now 33 99");
        assert_ne!(terminal.stty(&["-g"]), before, "not in raw mode");
        terminal.resize(40, 120);
        terminal.read_to("now 40 120");
        terminal.type_in("\x03");
        terminal.read_to("caught interrupt");
        terminal.type_in(&format!("{visit}\n"));
        terminal.read_to(&format!("got {visit}"));
        terminal.type_in("\x10\x11");
        assert_eq!(visitor.wait().expect("fairing ends").code(), Some(0));
        assert_eq!(terminal.stty(&["-g"]), before);
    }
    let list = finish(fairing().args(["attach", "--mode=list", pod.uuid()])).expect_code(0);
    assert_eq!(list.out(), "tty-in\ntty-out\n");
    assert_eq!(pod.state("shell"), "running");
    pod.end();
}
