//! `kill -9` in every phase from an image's import to a running app: the next command cleans up, and nothing is left.
//!
//! A phase is told by what can be seen from outside: it has begun, and the next one has not. The victim is stopped while that
//! is looked at; a kill that would fall outside its phase is no round. To lay out a pod takes too little time for that: there
//! the moment is one of its system calls, at which strace kills it.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tests::leftovers::Leftovers;
use tests::random::Random;
use tests::running::signal;
use tests::{fairing, finish, rounds, run_sh, store, tell, test_image, wait_until};

/// How often a phase may be missed for each kill that hits it.
const MISSES: usize = 10;

/// By how much sooner than after a hit a kill comes after each miss.
const SOONER: f64 = 0.7;

/// How long after its start an app is killed at most.
const APP_SPAN: Duration = Duration::from_secs(1);

/// Where strace writes.
const TRACE: &str = "/var/tmp/fairing-prepare.trace";

/// A stretch of a command's life, which the next one ends.
struct Phase {
    name: &'static str,
    begun: fn(u32) -> bool,
}

const IMPORT: [Phase; 2] = [
    Phase {
        name: "import",
        begun: |_| holds_any("store/tmp"),
    },
    Phase {
        name: "imported",
        begun: |_| holds_any("store/images"),
    },
];

const POD: [Phase; 3] = [
    Phase {
        name: "VMM set-up",
        begun: |_| holds_any("pods/run"),
    },
    Phase {
        name: "kernel boot",
        begun: has_vcpu,
    },
    Phase {
        name: "app running",
        begun: |_| is_ready(),
    },
];

fn holds_any(folder: &str) -> bool {
    fs::read_dir(store().join(folder)).is_ok_and(|mut entries| entries.next().is_some())
}

/// The vCPUs' threads are the last that a machine needs.
fn has_vcpu(pid: u32) -> bool {
    let name =
        |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.is_ok_and(|tasks| tasks.flatten().any(|task| name(task).starts_with("vcpu")))
}

fn is_ready() -> bool {
    let ready = |pod: fs::DirEntry| {
        pod.path()
            .join("stage1/rootfs/rkt/supervisor-status")
            .is_symlink()
    };
    fs::read_dir(store().join("pods/run")).is_ok_and(|pods| pods.flatten().any(ready))
}

/// Victims, and the random moments of their deaths.
struct Killer {
    random: Random,
    command: fn() -> Command,
}

impl Killer {
    fn victim(&self) -> std::process::Child {
        let mut command = (self.command)();
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("fairing starts")
    }

    /// How long each phase but the last takes when nobody interferes.
    fn spans(&self, phases: &[Phase]) -> Vec<Duration> {
        let mut victim = self.victim();
        let begun = |phase: &Phase| {
            wait_until(phase.name, || (phase.begun)(victim.id()));
            Instant::now()
        };
        let moments: Vec<_> = phases.iter().map(begun).collect();
        victim.kill().expect("the victim is there");
        victim.wait().expect("the victim can be waited for");
        moments.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// Kills a victim at a random moment of `phase`; false if the phase was over by then.
    fn kill_in(&mut self, phase: &Phase, next: Option<&Phase>, span: Duration) -> bool {
        let mut victim = self.victim();
        wait_until(phase.name, || (phase.begun)(victim.id()));
        // The moment is the test's subject: nothing is being waited for.
        thread::sleep(self.random.moment(span));
        signal(victim.id(), "STOP");
        let hit = !next.is_some_and(|next| (next.begun)(victim.id()));
        victim.kill().expect("the victim is there");
        victim.wait().expect("the victim can be waited for");
        hit
    }

    /// Kills often enough in each of `phases`, and looks after each time at what is left.
    fn kill_in_each(&mut self, phases: &[Phase], last_span: Option<Duration>, kills: usize) {
        let before = Leftovers::now();
        let spans = self.spans(phases);
        clean();
        for (index, span) in spans.into_iter().chain(last_span).enumerate() {
            let phase = &phases[index];
            let (mut hits, mut missed) = (0, 0);
            for attempt in 0.. {
                assert!(
                    attempt < kills * MISSES,
                    "phase {} cannot be hit",
                    phase.name
                );
                // The span is one of a single life, which may have been a slow one: after misses the kill comes sooner.
                let span = span.mul_f64(SOONER.powi(missed));
                if self.kill_in(phase, phases.get(index + 1), span) {
                    (hits, missed) = (hits + 1, 0);
                } else {
                    missed += 1;
                }
                let alive = Leftovers::now();
                assert_eq!(alive.alive_since(&before), [""; 0], "{}", phase.name);
                clean();
                assert_eq!(Leftovers::now().since(&before), [""; 0], "{}", phase.name);
                if hits == kills {
                    tell(&format!(
                        "{}: {kills} kills within {span:?}, {} missed",
                        phase.name,
                        attempt + 1 - hits
                    ));
                    break;
                }
            }
        }
    }
}

/// Kills `fairing prepare` at random system calls from the first that names the pod's directory on.
fn kill_preparations(killer: &mut Killer, kills: usize) {
    let prepare = |options: &[&str]| {
        let fairing = fairing();
        let mut strace = Command::new("strace");
        strace
            .args(["-qq", "-o"])
            .arg(TRACE)
            .args(options)
            .arg(fairing.get_program());
        strace
            .args(fairing.get_args())
            .arg("prepare")
            .arg(test_image("busybox"));
        finish(&mut strace)
    };
    let before = Leftovers::now();
    prepare(&[]).expect_code(0);
    let trace = fs::read_to_string(TRACE).expect("a trace");
    let first = trace.lines().position(|call| call.contains("embryo"));
    let first = first.expect("a pod's directory is made");
    let calls: Vec<_> = trace
        .lines()
        .filter_map(|call| Some(call.split_once('(')?.0))
        .collect();
    clean();
    let (mut hits, mut attempts) = (0, 0);
    while hits < kills {
        attempts += 1;
        assert!(attempts <= kills * MISSES, "preparations cannot be hit");
        // strace counts the calls of each name.
        let after = killer.random.below((calls.len() - first) as u64);
        let call = first + usize::try_from(after).expect("64-bit numbers");
        let name = calls[call];
        let count = calls[..=call].iter().filter(|other| **other == name);
        let inject = format!("inject={name}:signal=KILL:when={}", count.count());
        // Not every preparation takes equally many calls: one that has ended by then is no round.
        match prepare(&["-e", &inject]).code {
            0 => {}
            code => {
                assert_eq!(code, 137, "system call {call}");
                hits += 1;
            }
        }
        let alive = Leftovers::now();
        assert_eq!(alive.alive_since(&before), [""; 0], "call {call}");
        clean();
        assert_eq!(Leftovers::now().since(&before), [""; 0], "call {call}");
    }
    tell(&format!(
        "prepare: {kills} kills at system calls {first} to {}, {} missed",
        calls.len(),
        attempts - hits
    ));
}

/// What the next commands do. An image that was whole by then is removed, whether it had its name already or not; that of the
/// pods, which has one, stays.
fn clean() {
    finish(fairing().args(["gc", "--grace-period=0s", "--expire-prepared=0s"])).expect_code(0);
    assert!(!holds_any("store/tmp"), "gc sweeps the store too");
    let list = ["image", "list", "--no-legend", "--full", "--fields=id,name"];
    let images = finish(fairing().args(list)).expect_code(0).out();
    for image in images.lines() {
        let mut words = image.split_whitespace();
        let id = words.next().expect("an id");
        if words.next() != Some("latest") {
            finish(fairing().args(["image", "rm", id])).expect_code(0);
        }
    }
}

#[test]
fn victim_killed_in_any_phase_leaves_nothing_that_the_next_command_does_not_clean() {
    let kills = rounds("kills in each phase", 1, 20);
    // The store is made, and known to be empty.
    finish(fairing().args(["gc"])).expect_code(0);
    clean();
    let import = || {
        let mut command = fairing();
        command
            .args(["image", "import"])
            .arg(test_image("giant.docker"));
        command
    };
    let mut killer = Killer {
        random: Random::seeded(),
        command: import,
    };
    killer.kill_in_each(&IMPORT, None, kills);
    // The pod's image is there, so that the kills fall into the pod's own life.
    finish(&mut run_sh(&["--rm"], "true")).expect_code(0);
    kill_preparations(&mut killer, kills);
    killer.command = || run_sh(&[], "sleep 1000");
    killer.kill_in_each(&POD, Some(APP_SPAN), kills);
    // And the store still works.
    finish(&mut run_sh(&["--rm"], "exit 3")).expect_code(3);
}
