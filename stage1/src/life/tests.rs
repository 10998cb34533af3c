//! The story of a pod, told by honest guests and by others.

use guest_init::protocol::{Entry, Limits, Powers, Root, Scratch, Stdio};
use proptest::prelude::*;

use super::*;

/// What the pods here are given; no other time is as long.
const STOP_GRACE: Duration = Duration::from_secs(7);

pub(super) fn app(name: &str) -> App {
    App {
        name: name.into(),
        root: Root::Share(0),
        read_only_root: false,
        restrict_paths: true,
        powers: Powers::default(),
        limits: Limits::default(),
        resource_limits: vec![],
        exec: vec!["/x".into()],
        search_path: "/bin".into(),
        environment: vec![],
        working_directory: "/".into(),
        user: "0".into(),
        group: "0".into(),
        supplementary_gids: vec![],
        mounts: vec![],
        pre_start: vec![],
        built_in: false,
        post_stop: vec![],
        stdio: Stdio::Streams {
            stdin: None,
            stdout: None,
            stderr: None,
        },
    }
}

pub(super) fn life_of(names: &[&str], mutable: bool) -> Life {
    let boot = Boot {
        hostname: "h".into(),
        resolv: None,
        hosts: None,
        clock_ns: 0,
        entropy: vec![],
        cpus: 1,
        scratch: Scratch::Tmpfs,
        cards: vec![],
        routes: vec![],
        shares: vec![],
        limits: Limits::default(),
        sysctls: vec![],
        debug: false,
    };
    let stopping = Stopping {
        signals: vec![Signal::SIGTERM as i32, Signal::SIGQUIT as i32],
        grace: STOP_GRACE,
    };
    let apps = names.iter().map(|name| app(name));
    Life::new(boot, apps.collect(), stopping, mutable)
}

fn life() -> Life {
    life_of(&["a"], false)
}

fn running_pod(names: &[&str]) -> Life {
    let mut life = life_of(names, false);
    let greeted = life.on_message(ToHost::Hello {
        version: protocol::VERSION,
    });
    assert_eq!(greeted.len(), 1 + names.len());
    let apps = 0..life.next;
    let last = apps.end - 1;
    for task in apps {
        let actions = life.on_message(ToHost::Started { task });
        assert_eq!(actions.contains(&Action::Ready), task == last);
    }
    life
}

fn running() -> Life {
    running_pod(&["a"])
}

pub(super) fn exited(task: TaskId, status: Status) -> ToHost {
    ToHost::Exited {
        task,
        status,
        memory_exceeded: false,
    }
}

pub(super) fn signal(task: TaskId, signal: Signal) -> Action {
    let signal = signal as i32;
    Action::Send(ToGuest::Signal { task, signal })
}

#[test]
fn pod_that_runs_through_gives_the_apps_code_after_its_output() {
    let mut life = running();
    assert_eq!(life.on_drained(0), []);
    assert_eq!(
        life.on_message(exited(0, Status::Code(42))),
        [Action::Close(0)]
    );
    assert_eq!(life.exit_code(), None);
    let actions = life.on_drained(0);
    assert_eq!(actions[0], Action::Record("a".into(), 42));
    assert_eq!(actions[1], Action::Answer(0, Answer::Exited { code: 42 }));
    assert_eq!(actions[2], Action::Send(ToGuest::PowerOff));
    assert_eq!(life.exit_code(), Some(42));
}

#[test]
fn app_killed_by_a_signal_gives_128_and_the_signal() {
    let mut life = running();
    life.on_message(exited(0, Status::Signal(9)));
    life.on_drained(0);
    assert_eq!(life.exit_code(), Some(137));
}

#[test]
fn second_interrupt_ends_the_pod() {
    let mut life = running();
    assert!(matches!(
        life.on_signal(Signal::SIGINT)[..],
        [Action::Send(_)]
    ));
    assert_eq!(life.on_signal(Signal::SIGINT), [Action::Kill]);
    assert_eq!(life.exit_code(), Some(130));
}

#[test]
fn signal_after_the_apps_end_keeps_its_code() {
    let mut life = running();
    let status = Status::Code(3);
    life.on_message(exited(0, status));
    assert_eq!(life.on_signal(Signal::SIGUSR1), []);
    let actions = life.on_signal(Signal::SIGTERM);
    assert_eq!(
        actions,
        [
            Action::Record("a".into(), 3),
            Action::Answer(0, Answer::Exited { code: 3 }),
            Action::Kill
        ]
    );
    assert_eq!(life.on_signal(Signal::SIGTERM), []);
    assert_eq!(life.exit_code(), Some(3));
}

#[test]
fn pod_that_is_stopped_asks_each_app_by_its_signal_once_and_kills_what_outlives_its_grace() {
    let mut life = running_pod(&["a", "b"]);
    let actions = life.on_stop();
    let asked = [signal(0, Signal::SIGTERM), signal(1, Signal::SIGQUIT)];
    assert_eq!(actions[..2], asked);
    assert_eq!(actions[2..], [Action::StartGrace(STOP_GRACE)]);
    assert_eq!(life.on_stop(), [], "the grace goes on");
    life.on_message(exited(0, Status::Code(0)));
    let killed = [signal(1, Signal::SIGKILL), Action::StartGrace(GRACE)];
    assert_eq!(life.on_grace_over(), killed);
    life.on_message(exited(1, Status::Signal(9)));
    life.on_drained(0);
    life.on_drained(1);
    assert_eq!(life.exit_code(), Some(137));
}

#[test]
fn pod_that_is_stopped_before_its_apps_or_after_them_ends_all_the_same() {
    let mut life = life();
    assert_eq!(life.on_stop(), [Action::Kill]);
    assert_eq!(life.exit_code(), Some(143));
    let mut life = running();
    life.on_message(exited(0, Status::Code(3)));
    assert_eq!(life.on_stop(), [Action::StartGrace(STOP_GRACE)]);
    assert_eq!(life.on_stop(), []);
    let given_up = [
        Action::Record("a".into(), 3),
        Action::Answer(0, Answer::Exited { code: 3 }),
        Action::Kill,
    ];
    assert_eq!(life.on_grace_over(), given_up);
    assert_eq!(life.exit_code(), Some(3));
}

#[test]
fn signal_before_the_app_runs_ends_the_pod() {
    let mut life = life();
    assert_eq!(life.on_signal(Signal::SIGTERM), [Action::Kill]);
    assert_eq!(life.exit_code(), Some(143));
}

#[test]
fn timeout_of_a_running_app_gives_124_whatever_its_status() {
    let mut life = running();
    assert!(life.on_timeout().contains(&Action::StartGrace(GRACE)));
    life.on_message(exited(0, Status::Signal(9)));
    life.on_drained(0);
    assert_eq!(life.exit_code(), Some(124));
}

#[test]
fn timeout_after_the_apps_end_gives_up_its_output_and_keeps_its_code() {
    let mut life = running();
    life.on_message(exited(0, Status::Code(3)));
    assert_eq!(
        life.on_timeout(),
        [
            Action::Record("a".into(), 3),
            Action::Answer(0, Answer::Exited { code: 3 }),
            Action::Kill
        ]
    );
    assert_eq!(life.on_timeout(), []);
    assert_eq!(life.exit_code(), Some(3));
}

#[test]
fn message_out_of_turn_ends_the_pod() {
    let mut life = life();
    let actions = life.on_message(exited(0, Status::Code(0)));
    assert_eq!(actions.last(), Some(&Action::Kill));
    assert_eq!(life.exit_code(), Some(FAILED));
}

#[test]
fn reason_with_escape_sequences_is_made_printable() {
    assert_eq!(printable("a\x1b[2J\nb"), "a [2J b");
}
#[test]
fn pod_of_several_apps_ends_with_the_last_of_them() {
    let mut life = running_pod(&["a", "b"]);
    assert_eq!(
        life.on_message(exited(1, Status::Code(0))),
        [Action::Close(1)]
    );
    let told = Action::Answer(1, Answer::Exited { code: 0 });
    assert_eq!(life.on_drained(1), [Action::Record("b".into(), 0), told]);
    assert_eq!(
        life.on_signal(Signal::SIGTERM),
        [signal(0, Signal::SIGTERM)]
    );
    life.on_message(exited(0, Status::Code(0)));
    assert!(
        life.on_drained(0)
            .contains(&Action::Send(ToGuest::PowerOff))
    );
    assert_eq!(life.exit_code(), Some(0));
}

#[test]
fn app_that_fails_takes_the_others_along_and_gives_the_code() {
    let mut life = running_pod(&["a", "b", "c"]);
    let actions = life.on_message(exited(1, Status::Code(7)));
    assert_eq!(actions[0], Action::Close(1));
    assert_eq!(
        actions[1..],
        [
            signal(0, Signal::SIGTERM),
            signal(2, Signal::SIGTERM),
            Action::StartGrace(STOP_GRACE)
        ]
    );
    // The one that heeds it fails in its turn, which changes nothing.
    let actions = life.on_message(exited(0, Status::Signal(15)));
    assert_eq!(actions, [Action::Close(0)]);
    assert_eq!(life.on_grace_over()[0], signal(2, Signal::SIGKILL));
    life.on_message(exited(2, Status::Signal(9)));
    for (task, code) in [(0, 143), (1, 7), (2, 137)] {
        let name = ["a", "b", "c"][usize::try_from(task).expect("an index")].to_owned();
        assert_eq!(life.on_drained(task)[0], Action::Record(name, code));
    }
    assert_eq!(life.exit_code(), Some(7));
}

#[test]
fn pod_whose_second_app_cannot_start_ends_with_its_code() {
    let mut life = life_of(&["a", "b"], false);
    life.on_message(ToHost::Hello {
        version: protocol::VERSION,
    });
    life.on_message(ToHost::Started { task: 0 });
    let actions = life.on_message(ToHost::NotStarted {
        task: 1,
        code: 127,
        reason: "r".into(),
    });
    assert!(actions.contains(&signal(0, Signal::SIGTERM)));
    life.on_message(exited(0, Status::Signal(15)));
    life.on_drained(0);
    life.on_drained(1);
    assert_eq!(life.exit_code(), Some(127));
}

#[test]
fn app_whose_memory_was_used_up_is_told_of() {
    let mut life = running();
    let actions = life.on_message(ToHost::Exited {
        task: 0,
        status: Status::Signal(9),
        memory_exceeded: true,
    });
    assert!(matches!(&actions[1], Action::Tell(text) if text.contains("memory was used up")));
}

#[test]
fn guest_that_fails_again_and_again_gains_no_time() {
    let mut life = running();
    let failed = || ToHost::Failed { reason: "r".into() };
    assert_eq!(life.on_message(failed()).len(), 3);
    assert_eq!(life.on_message(failed()), []);
    assert_eq!(life.exit_code(), Some(FAILED));
}

/// A command without streams.
pub(crate) fn entry(app: &str) -> Entry {
    Entry {
        app: app.into(),
        exec: vec!["x".into()],
        user: None,
        environment: vec![],
        built_in: false,
        working_directory: None,
        stdio: Stdio::Streams {
            stdin: None,
            stdout: None,
            stderr: None,
        },
    }
}

#[test]
fn command_entered_is_answered_and_does_not_end_the_pod() {
    let mut life = running_pod(&["a", "b"]);
    let task = life.number_entry("b").expect("b runs");
    assert_eq!(task, 2);
    assert_eq!(life.enter(task, entry("b")).len(), 1);
    assert_eq!(
        life.on_message(ToHost::Started { task }),
        [Action::Answer(task, Answer::Started)]
    );
    assert_eq!(life.on_leave(task), [signal(task, Signal::SIGHUP)]);
    let exit = Answer::Exited { code: 5 };
    assert_eq!(
        life.on_message(exited(task, Status::Code(5))),
        [Action::Close(task), Action::Answer(task, exit)]
    );
    assert_eq!(life.on_leave(task), []);
    assert_eq!(life.exit_code(), None);
}

#[test]
fn command_for_an_app_that_does_not_run_gets_no_number() {
    let mut life = running_pod(&["a", "b"]);
    assert!(life.number_entry("c").expect_err("no c").contains("a, b"));
    life.on_message(exited(1, Status::Code(0)));
    assert!(life.number_entry("b").is_err() && life.number_entry("a").is_ok());
}

#[derive(Clone, Debug)]
enum Event {
    Message(ToHost),
    Signal(Signal),
    Resize,
    Stop,
    Enter,
    Drained(TaskId),
    Timeout,
    GraceOver,
    Broken,
}

/// What a guest sends that knows the protocol and keeps to it now and then, between what the user and the clock do. The
/// pod has the apps 0 and 1, and 2 is a command entered into one.
fn event() -> impl Strategy<Value = Event> {
    let task = || prop_oneof![4 => Just(0), 4 => Just(1), 2 => Just(2), 1 => any::<u32>()];
    let status = prop_oneof![
        any::<u8>().prop_map(Status::Code),
        any::<u8>().prop_map(Status::Signal)
    ];
    let message = prop_oneof![
        4 => Just(ToHost::Hello { version: protocol::VERSION }),
        1 => any::<u32>().prop_map(|version| ToHost::Hello { version }),
        8 => task().prop_map(|task| ToHost::Started { task }),
        2 => (task(), any::<u8>()).prop_map(|(task, code)| ToHost::NotStarted { task, code, reason: "r".into() }),
        4 => (task(), status).prop_map(|(task, status)| exited(task, status)),
        1 => Just(ToHost::Failed { reason: "\x1b[2J".into() }),
    ];
    let signal = prop::sample::select(vec![
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGQUIT,
    ]);
    prop_oneof![
        16 => message.prop_map(Event::Message),
        2 => signal.prop_map(Event::Signal),
        1 => Just(Event::Resize),
        1 => Just(Event::Stop),
        2 => Just(Event::Enter),
        4 => (0..2u32).prop_map(Event::Drained),
        1 => Just(Event::Timeout),
        1 => Just(Event::GraceOver),
        1 => Just(Event::Broken),
    ]
}

fn happens(life: &mut Life, event: Event) -> Vec<Action> {
    match event {
        Event::Message(message) => life.on_message(message),
        Event::Signal(signal) => life.on_signal(signal),
        Event::Resize => life.on_resize(Window {
            rows: 1,
            columns: 1,
        }),
        Event::Stop => life.on_stop(),
        Event::Enter => match life.number_entry("a") {
            Ok(task) => life.enter(task, entry("a")),
            Err(_) => vec![],
        },
        Event::Drained(task) => life.on_drained(task),
        Event::Timeout => life.on_timeout(),
        Event::GraceOver => life.on_grace_over(),
        Event::Broken => life.fail("broken"),
    }
}

proptest! {
    #[test]
    fn life_with_any_guest_boots_once_records_once_and_tells_nothing_unprintable(
        honest in 0usize..4, events in prop::collection::vec(event(), 0..30)
    ) {
        let mut life = life_of(&["a", "b"], false);
        let beginning = [
            ToHost::Hello { version: protocol::VERSION },
            ToHost::Started { task: 0 },
            ToHost::Started { task: 1 },
        ];
        let beginning = beginning.into_iter().take(honest).map(Event::Message);
        let (mut boots, mut ready, mut records) = (0, 0, Vec::new());
        let (mut entered, mut answered) = (Vec::new(), Vec::new());
        for event in beginning.chain(events) {
            for action in happens(&mut life, event) {
                match action {
                    Action::Send(ToGuest::Boot(_) | ToGuest::Start { .. }) => boots += 1,
                    Action::Send(ToGuest::Enter { task, .. }) => entered.push(task),
                    Action::Send(ToGuest::Signal { task, .. } | ToGuest::Resize { task, .. }) => prop_assert!(task < 2),
                    Action::Ready => ready += 1,
                    Action::Record(app, code) => records.push((app, code)),
                    Action::Tell(text) => prop_assert!(!text.contains(char::is_control), "{:?}", text),
                    Action::Answer(task, Answer::Started) => prop_assert!(entered.contains(&task)),
                    // Of an app's end everybody who waits for it is told.
                    Action::Answer(0..2, Answer::Exited { .. }) => {}
                    Action::Answer(task, _) => answered.push(task),
                    Action::Send(ToGuest::Remove { .. } | ToGuest::Cpus(_)) | Action::Forget { .. } => prop_assert!(false, "no such pod"),
                    Action::Send(ToGuest::PowerOff) | Action::Close(_) | Action::Kill | Action::StartGrace(_) => {}
                }
            }
        }
        prop_assert!(boots == 0 || boots == 3);
        prop_assert!(ready <= 1 && records.len() <= 2);
        records.dedup_by(|one, other| one.0 == other.0);
        prop_assert!(records.iter().all(|(app, _)| app == "a" || app == "b"));
        answered.sort_unstable();
        let count = answered.len();
        answered.dedup();
        prop_assert!(count == answered.len() && answered.iter().all(|task| entered.contains(task)));
        // Only a cause told before or after can stand above the apps' own codes.
        if let (Some(code), None) = (life.exit_code(), life.overriding) {
            prop_assert!(records.iter().any(|(_, recorded)| *recorded == code));
        }
    }
}
