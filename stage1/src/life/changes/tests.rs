//! Pods whose apps come and go.

use guest_init::protocol::{self, Left, Mount, Status, ToHost};
use nix::sys::signal::Signal;
use proptest::prelude::*;

use super::super::tests::{app, entry, exited, life_of, signal};
use super::*;

const HELLO: ToHost = ToHost::Hello {
    version: protocol::VERSION,
};

/// A pod that runs and has no app yet.
fn empty() -> Life {
    let mut life = life_of(&[], true);
    assert_eq!(life.on_message(HELLO).last(), Some(&Action::Ready));
    life
}

/// The number of the present life of app `name`, which was added and runs.
fn run(life: &mut Life, name: &str) -> TaskId {
    let (task, _) = life.number_start(name).expect("an app that does not run");
    let actions = life.start(task);
    assert!(matches!(actions[..], [Action::Send(ToGuest::Start { .. })]));
    let started = life.on_message(ToHost::Started { task });
    assert_eq!(started, [Action::Answer(task, Answer::Started)]);
    task
}

fn ended(life: &mut Life, task: TaskId, code: u8) -> Vec<Action> {
    assert_eq!(
        life.on_message(exited(task, Status::Code(code))),
        [Action::Close(task)]
    );
    life.on_drained(task)
}

/// The removal of app `name`, which does not run.
fn removal_of(life: &mut Life, name: &str) -> (TaskId, Vec<Action>) {
    let removal = life.remove(name).expect("it does not run");
    removal.expect("it is there")
}

fn gone(removal: TaskId, image: Option<u8>, shares: Vec<u16>) -> [Action; 2] {
    let answer = Answer::Removed {
        shares: shares.clone(),
    };
    [
        Action::Forget { image, shares },
        Action::Answer(removal, answer),
    ]
}

#[test]
fn cpus_that_come_before_the_machine_is_up_are_those_that_it_boots_with() {
    let mut life = life_of(&[], true);
    assert_eq!(life.set_cpus(3), Ok(vec![]));
    let greeted = life.on_message(HELLO);
    assert!(matches!(&greeted[0], Action::Send(ToGuest::Boot(boot)) if boot.cpus == 3));
    assert_eq!(life.set_cpus(2), Ok(vec![Action::Send(ToGuest::Cpus(2))]));
    assert!(life_of(&[], false).set_cpus(2).is_err());
    life.on_stop();
    assert!(life.set_cpus(1).is_err());
}

#[test]
fn app_is_added_run_twice_and_removed_and_the_pod_goes_on() {
    let mut life = empty();
    let mut added = app("a");
    added.root = Root::Image {
        number: 3,
        bytes: 4096,
    };
    let volume = |name: &str| Mount {
        volume: Volume::Empty {
            name: name.into(),
            mode: 0o755,
            uid: 0,
            gid: 0,
        },
        target: "/data".into(),
        read_only: false,
    };
    added.mounts = vec![volume("a-data"), volume("common")];
    life.add(added.clone(), 2).expect("room");
    assert!(life.add(added, 2).is_err(), "the name is taken");
    let first = run(&mut life, "a");
    assert!(life.number_start("a").is_err() && life.remove("a").is_err());
    let end = [
        Action::Record("a".into(), 3),
        Action::Answer(first, Answer::Exited { code: 3 }),
    ];
    assert_eq!(ended(&mut life, first, 3), end);
    assert_eq!(life.stop_app("a"), Ok(None));
    let second = run(&mut life, "a");
    assert!(second > first, "a number is used once");
    let asked = life.stop_app("a").expect("it runs").expect("it runs");
    assert_eq!(asked, (second, vec![signal(second, Signal::SIGINT)]));
    assert_eq!(
        life.signal_task(second, 9),
        [signal(second, Signal::SIGKILL)]
    );
    assert_eq!(life.on_leave(second), []);
    ended(&mut life, second, 0);
    let (removal, actions) = removal_of(&mut life, "a");
    let message = ToGuest::Remove {
        task: removal,
        left: Left {
            app: "a".into(),
            image: Some(3),
            shares: false,
            volumes: vec!["a-data".into()],
        },
    };
    assert_eq!(actions, [Action::Send(message)]);
    assert!(life.add(app("a"), 15).is_err(), "its files are still there");
    let again = life.remove("a").expect("it is being removed");
    assert_eq!(again, Some((removal, vec![])));
    assert_eq!(life.on_message(ToHost::Started { task: removal }), []);
    assert_eq!(
        life.on_message(exited(removal, Status::Code(0))),
        gone(removal, Some(3), vec![])
    );
    assert!(life.add(app("a"), 15).is_ok());
    assert_eq!(life.exit_code(), None);
}

#[test]
fn share_is_given_up_with_the_last_app_that_has_it() {
    let mut life = empty();
    for name in ["a", "b"] {
        life.add(app(name), 15).expect("room");
    }
    for (name, shares) in [("a", vec![]), ("b", vec![0])] {
        let (task, _) = removal_of(&mut life, name);
        assert_eq!(
            life.on_message(exited(task, Status::Code(0))),
            gone(task, None, shares)
        );
    }
}

#[test]
fn app_that_could_not_be_removed_is_there_as_before() {
    let mut life = empty();
    life.add(app("a"), 15).expect("room");
    let failures = [
        |task| ToHost::NotStarted {
            task,
            code: 254,
            reason: "busy\n".into(),
        },
        |task| exited(task, Status::Signal(9)),
    ];
    for (fails, why) in failures
        .into_iter()
        .zip(["busy ", "what removes it was killed"])
    {
        let (task, _) = removal_of(&mut life, "a");
        let reason = why.to_owned();
        assert_eq!(
            life.on_message(fails(task)),
            [Action::Answer(task, Answer::Refused { reason })]
        );
    }
    // It is still there, can be run, and removed in the end.
    let task = run(&mut life, "a");
    ended(&mut life, task, 0);
    let (task, _) = removal_of(&mut life, "a");
    let removed = life.on_message(exited(task, Status::Code(0)));
    assert_eq!(removed.len(), 2);
}

#[test]
fn app_that_is_not_there_does_not_run_and_is_removed() {
    let mut life = empty();
    assert_eq!(life.stop_app("a"), Ok(None));
    assert_eq!(life.remove("a"), Ok(None));
    assert!(life.number_start("a").is_err());
}

#[test]
fn pod_ends_when_it_is_told_to_and_with_its_apps() {
    for stop in [Life::on_stop, |life: &mut Life| {
        life.on_signal(Signal::SIGTERM)
    }] {
        assert!(stop(&mut empty()).contains(&Action::Send(ToGuest::PowerOff)));
        let mut life = empty();
        life.add(app("a"), 15).expect("room");
        let task = run(&mut life, "a");
        assert!(stop(&mut life).contains(&signal(task, Signal::SIGTERM)));
        assert!(life.number_start("a").is_err() && life.add(app("b"), 15).is_err());
        let end = ended(&mut life, task, 143);
        assert!(end.contains(&Action::Send(ToGuest::PowerOff)));
        assert_eq!(life.exit_code(), Some(0));
    }
}

#[test]
fn app_started_before_the_machine_is_sent_when_it_is() {
    let mut life = life_of(&[], true);
    life.add(app("a"), 15).expect("room");
    let (task, _) = life.number_start("a").expect("it does not run");
    assert_eq!(life.start(task), []);
    let greeted = life.on_message(HELLO);
    assert!(matches!(
        &greeted[..],
        [Action::Send(ToGuest::Boot(_)), Action::Send(ToGuest::Start { task: sent, .. }), Action::Ready] if *sent == task
    ));
}

#[test]
fn streams_of_a_later_life_are_at_its_own_ports() {
    let mut life = empty();
    let mut added = app("a");
    added.stdio = plan::streams(protocol::FIRST_STREAM_PORT, [true; 3]);
    life.add(added, 15).expect("room");
    for _ in 0..2 {
        let (task, stdio) = life.number_start("a").expect("it does not run");
        let ports = plan::ports(task);
        assert_eq!(stdio, plan::streams(ports.start, [true; 3]));
        let sent = life.start(task);
        assert!(matches!(
            &sent[..],
            [Action::Send(ToGuest::Start { app, .. })] if app.stdio == stdio
        ));
        life.on_message(ToHost::Started { task });
        ended(&mut life, task, 0);
    }
}

#[test]
fn apps_of_a_pod_that_is_not_mutable_stay_what_they_are() {
    let mut life = life_of(&["a"], false);
    life.on_message(HELLO);
    life.on_message(ToHost::Started { task: 0 });
    assert!(life.add(app("b"), 15).is_err() && life.number_start("a").is_err());
    assert!(life.stop_app("a").is_err() && life.remove("a").is_err());
}

#[derive(Clone, Debug)]
enum Event {
    Message(ToHost),
    Add(usize),
    Start(usize),
    Stop(usize),
    Remove(usize),
    Enter(usize),
    Drained(TaskId),
    End,
}

const NAMES: [&str; 2] = ["a", "b"];

fn event() -> impl Strategy<Value = Event> {
    let task = || 0u32..12;
    let name = || 0..NAMES.len();
    let message = prop_oneof![
        4 => task().prop_map(|task| ToHost::Started { task }),
        1 => task().prop_map(|task| ToHost::NotStarted { task, code: 1, reason: "\x1b".into() }),
        4 => task().prop_map(|task| exited(task, Status::Code(0))),
        1 => task().prop_map(|task| exited(task, Status::Signal(9))),
    ];
    prop_oneof![
        12 => message.prop_map(Event::Message),
        6 => name().prop_map(Event::Add),
        8 => name().prop_map(Event::Start),
        2 => name().prop_map(Event::Stop),
        4 => name().prop_map(Event::Remove),
        2 => name().prop_map(Event::Enter),
        6 => task().prop_map(Event::Drained),
        1 => Just(Event::End),
    ]
}

fn happens(life: &mut Life, event: Event) -> Vec<Action> {
    match event {
        Event::Message(message) => life.on_message(message),
        Event::Add(index) => {
            let _ = life.add(app(NAMES[index]), 15);
            vec![]
        }
        Event::Start(index) => match life.number_start(NAMES[index]) {
            Ok((task, _)) => life.start(task),
            Err(_) => vec![],
        },
        Event::Stop(index) => match life.stop_app(NAMES[index]) {
            Ok(Some((_, actions))) => actions,
            Ok(None) | Err(_) => vec![],
        },
        Event::Remove(index) => match life.remove(NAMES[index]) {
            Ok(Some((_, actions))) => actions,
            Ok(None) | Err(_) => vec![],
        },
        Event::Enter(index) => match life.number_entry(NAMES[index]) {
            Ok(task) => life.enter(task, entry(NAMES[index])),
            Err(_) => vec![],
        },
        Event::Drained(task) => life.on_drained(task),
        Event::End => life.on_stop(),
    }
}

proptest! {
    #[test]
    fn tasks_have_numbers_of_their_own_and_one_answer_each_with_any_guest(events in prop::collection::vec(event(), 0..60)) {
        let mut life = empty();
        let (mut begun, mut over) = (Vec::new(), Vec::new());
        for event in events {
            for action in happens(&mut life, event) {
                match action {
                    Action::Send(
                        ToGuest::Start { task, .. } | ToGuest::Enter { task, .. } | ToGuest::Remove { task, .. },
                    ) => {
                        prop_assert!(!begun.contains(&task), "{} twice", task);
                        begun.push(task);
                    }
                    Action::Send(ToGuest::Signal { task, .. }) => prop_assert!(begun.contains(&task)),
                    Action::Answer(task, Answer::Started) => prop_assert!(begun.contains(&task)),
                    // Of an app that could not be started its end is told, too.
                    Action::Answer(_, Answer::NotStarted { reason, .. } | Answer::Refused { reason }) => {
                        prop_assert!(!reason.contains(char::is_control));
                    }
                    Action::Answer(task, _) => {
                        prop_assert!(begun.contains(&task) && !over.contains(&task));
                        over.push(task);
                    }
                    Action::Tell(text) => prop_assert!(!text.contains(char::is_control)),
                    _ => {}
                }
            }
        }
    }
}
