//! The story of a pod, told by honest guests and by others.

use guest_init::protocol::{Root, Scratch, Stdio, Window};
use proptest::prelude::*;

use super::*;

fn life() -> Life {
    let boot = Boot {
        hostname: "h".into(),
        clock_ns: 0,
        entropy: vec![],
        cpus: 1,
        scratch: Scratch::Tmpfs,
        shares: false,
        debug: false,
    };
    let app = App {
        name: "a".into(),
        root: Root::Share(0),
        read_only_root: false,
        restrict_capabilities: true,
        restrict_paths: true,
        exec: vec!["/x".into()],
        search_path: "/bin".into(),
        environment: vec![],
        working_directory: "/".into(),
        user: "0".into(),
        group: "0".into(),
        supplementary_gids: vec![],
        mounts: vec![],
        cpu_milli: None,
        stdio: Stdio::Streams {
            stdin: None,
            stdout: None,
            stderr: None,
        },
    };
    Life::new(boot, app)
}

fn running() -> Life {
    let mut life = life();
    assert_eq!(
        life.on_message(ToHost::Hello {
            version: protocol::VERSION
        })
        .len(),
        2
    );
    assert_eq!(
        life.on_message(ToHost::Started { app: "a".into() }),
        [Action::Ready]
    );
    life
}

#[test]
fn pod_that_runs_through_gives_the_apps_code_after_its_output() {
    let mut life = running();
    assert_eq!(life.on_drained(), []);
    assert_eq!(
        life.on_message(ToHost::Exited {
            app: "a".into(),
            status: Status::Code(42)
        }),
        [Action::Drain]
    );
    assert_eq!(life.exit_code(), None);
    let actions = life.on_drained();
    assert_eq!(actions[0], Action::Record("a".into(), 42));
    assert_eq!(actions[1], Action::Send(ToGuest::PowerOff));
    assert_eq!(life.exit_code(), Some(42));
}

#[test]
fn app_killed_by_a_signal_gives_128_and_the_signal() {
    let mut life = running();
    life.on_message(ToHost::Exited {
        app: "a".into(),
        status: Status::Signal(9),
    });
    life.on_drained();
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
    life.on_message(ToHost::Exited {
        app: "a".into(),
        status,
    });
    assert_eq!(life.on_signal(Signal::SIGUSR1), []);
    let actions = life.on_signal(Signal::SIGTERM);
    assert_eq!(actions, [Action::Record("a".into(), 3), Action::Kill]);
    assert_eq!(life.on_signal(Signal::SIGTERM), []);
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
    life.on_message(ToHost::Exited {
        app: "a".into(),
        status: Status::Signal(9),
    });
    life.on_drained();
    assert_eq!(life.exit_code(), Some(124));
}

#[test]
fn timeout_after_the_apps_end_gives_up_its_output_and_keeps_its_code() {
    let mut life = running();
    life.on_message(ToHost::Exited {
        app: "a".into(),
        status: Status::Code(3),
    });
    assert_eq!(
        life.on_timeout(),
        [Action::Record("a".into(), 3), Action::Kill]
    );
    assert_eq!(life.on_timeout(), []);
    assert_eq!(life.exit_code(), Some(3));
}

#[test]
fn message_out_of_turn_ends_the_pod() {
    let mut life = life();
    let actions = life.on_message(ToHost::Exited {
        app: "a".into(),
        status: Status::Code(0),
    });
    assert_eq!(actions.last(), Some(&Action::Kill));
    assert_eq!(life.exit_code(), Some(FAILED));
}

#[test]
fn reason_with_escape_sequences_is_made_printable() {
    assert_eq!(printable("a\x1b[2J\nb"), "a [2J b");
}
#[derive(Clone, Debug)]
enum Event {
    Message(ToHost),
    Signal(Signal),
    Resize,
    Drained,
    Timeout,
    GraceOver,
    Broken,
}

/// What a guest sends that knows the protocol and keeps to it now and then, between what the user and the clock do.
fn event() -> impl Strategy<Value = Event> {
    let app =
        || prop_oneof![8 => Just("a"), 1 => Just("b"), 1 => Just("../a")].prop_map(String::from);
    let status = prop_oneof![
        any::<u8>().prop_map(Status::Code),
        any::<u8>().prop_map(Status::Signal)
    ];
    let message = prop_oneof![
        4 => Just(ToHost::Hello { version: protocol::VERSION }),
        1 => any::<u32>().prop_map(|version| ToHost::Hello { version }),
        8 => app().prop_map(|app| ToHost::Started { app }),
        2 => (app(), any::<u8>()).prop_map(|(app, code)| ToHost::NotStarted { app, code, reason: "r".into() }),
        4 => (app(), status).prop_map(|(app, status)| ToHost::Exited { app, status }),
        1 => Just(ToHost::Failed { reason: "\x1b[2J".into() }),
    ];
    let signal = prop::sample::select(vec![
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGQUIT,
    ]);
    prop_oneof![
        12 => message.prop_map(Event::Message),
        2 => signal.prop_map(Event::Signal),
        1 => Just(Event::Resize),
        4 => Just(Event::Drained),
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
        Event::Drained => life.on_drained(),
        Event::Timeout => life.on_timeout(),
        Event::GraceOver => life.on_grace_over(),
        Event::Broken => life.on_control_broken("broken"),
    }
}

proptest! {
    #[test]
    fn life_with_any_guest_boots_once_records_once_and_tells_nothing_unprintable(
        honest in 0usize..3, events in prop::collection::vec(event(), 0..20)
    ) {
        let mut life = life();
        let beginning = [ToHost::Hello { version: protocol::VERSION }, ToHost::Started { app: "a".into() }];
        let beginning = beginning.into_iter().take(honest).map(Event::Message);
        let (mut boots, mut ready, mut records) = (0, 0, Vec::new());
        for event in beginning.chain(events) {
            for action in happens(&mut life, event) {
                match action {
                    Action::Send(ToGuest::Boot(_) | ToGuest::Start(_)) => boots += 1,
                    Action::Send(ToGuest::Signal { app, .. } | ToGuest::Resize { app, .. }) => prop_assert_eq!(app, "a"),
                    Action::Ready => ready += 1,
                    Action::Record(app, code) => records.push((app, code)),
                    Action::Tell(text) => prop_assert!(!text.contains(char::is_control), "{:?}", text),
                    Action::Send(ToGuest::PowerOff) | Action::Drain | Action::Kill | Action::StartGrace(_) => {}
                }
            }
        }
        prop_assert!(boots == 0 || boots == 2);
        prop_assert!(ready <= 1 && records.len() <= 1);
        if let Some((app, code)) = records.first() {
            prop_assert_eq!(app, "a");
            // Only a cause told before or after can stand above the app's own code.
            prop_assert!(life.exit_code() == Some(*code) || life.overriding.is_some());
        }
    }
}
