//! Frames of both directions: whole, in pieces, with faults, and in great numbers.

use std::net::IpAddr;

use hostile::{damage, damage_json, faults, json_faults};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z]{1,8}",
        "\\PC{0,20}",
        Just("\0\u{1b}\n\"\\".to_owned())
    ]
}

fn window() -> impl Strategy<Value = Window> {
    any::<(u16, u16)>().prop_map(|(rows, columns)| Window { rows, columns })
}

fn stdio() -> impl Strategy<Value = Stdio> {
    prop_oneof![
        any::<[Option<u32>; 3]>().prop_map(|[stdin, stdout, stderr]| Stdio::Streams {
            stdin,
            stdout,
            stderr
        }),
        (any::<u32>(), window()).prop_map(|(port, window)| Stdio::Terminal { port, window }),
    ]
}

fn mount() -> impl Strategy<Value = Mount> {
    let volume = prop_oneof![
        (any::<u16>(), cache()).prop_map(|(number, cache)| Volume::Share { number, cache }),
        (text(), any::<[u32; 3]>()).prop_map(|(name, [mode, uid, gid])| Volume::Empty {
            name,
            mode,
            uid,
            gid
        }),
        Just(Volume::Layer),
    ];
    (volume, text(), any::<bool>()).prop_map(|(volume, target, read_only)| Mount {
        volume,
        target,
        read_only,
    })
}

fn powers() -> impl Strategy<Value = Powers> {
    let capabilities = prop::option::of(prop::collection::vec(text(), 0..4));
    let seccomp = prop::collection::vec(any::<u64>(), 0..4);
    (capabilities, any::<bool>(), seccomp, any::<i32>()).prop_map(
        |(capabilities, no_new_privileges, seccomp, oom_score_adj)| Powers {
            capabilities,
            no_new_privileges,
            seccomp,
            oom_score_adj,
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    any::<([Option<u32>; 3], [Option<u64>; 3])>().prop_map(
        |([cpu_milli, cpu_weight, processes], [memory_bytes, disk_bytes, disk_operations])| {
            Limits {
                cpu_milli,
                cpu_weight,
                memory_bytes,
                processes,
                disk_bytes,
                disk_operations,
            }
        },
    )
}

fn resource_limit() -> impl Strategy<Value = ResourceLimit> {
    let resource = prop::sample::select(vec![Resource::As, Resource::Nofile, Resource::Stack]);
    (resource, any::<[u64; 2]>()).prop_map(|(resource, [soft, hard])| ResourceLimit {
        resource,
        soft,
        hard,
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let words = prop::collection::vec(text(), 0..4);
    let environment = prop::collection::vec((text(), text()), 0..4);
    let places = (prop::option::of(text()), prop::option::of(text()));
    (text(), words, environment, places, stdio()).prop_map(
        |(app, exec, environment, (user, working_directory), stdio)| Entry {
            app,
            built_in: false,
            exec,
            user,
            environment,
            working_directory,
            stdio,
        },
    )
}

fn app() -> impl Strategy<Value = App> {
    let texts = (text(), text(), text(), text(), text());
    let lists = (
        prop::collection::vec(text(), 0..4),
        prop::collection::vec((text(), text()), 0..4),
        prop::collection::vec(any::<u32>(), 0..4),
        prop::collection::vec(mount(), 0..4),
    );
    (
        texts,
        lists,
        any::<(u8, u64, [bool; 2])>(),
        (
            powers(),
            limits(),
            prop::collection::vec(resource_limit(), 0..3),
            stdio(),
        ),
    )
        .prop_map(
            |(
                (name, search_path, working_directory, user, group),
                lists,
                numbers,
                (powers, limits, resource_limits, stdio),
            )| App {
                name,
                root: match numbers.0 {
                    share if share % 2 == 0 => Root::Share(share.into()),
                    number => Root::Image {
                        number,
                        bytes: numbers.1,
                    },
                },
                read_only_root: numbers.2[0],
                restrict_paths: numbers.2[1],
                powers,
                limits,
                resource_limits,
                pre_start: lists.0.clone(),
                built_in: false,
                post_stop: lists.0.iter().rev().cloned().collect(),
                exec: lists.0,
                search_path,
                environment: lists.1,
                working_directory,
                user,
                group,
                supplementary_gids: lists.2,
                mounts: lists.3,
                stdio,
            },
        )
}

fn cache() -> impl Strategy<Value = Cache> {
    prop::sample::select(&Cache::ALL[..])
}

fn address() -> impl Strategy<Value = Address> {
    (any::<IpAddr>(), 0..=128u8).prop_map(|(ip, prefix)| Address { ip, prefix })
}

fn route() -> impl Strategy<Value = Route> {
    let rest = any::<([Option<IpAddr>; 2], [Option<u32>; 3], bool)>();
    (address(), rest).prop_map(
        |(to, ([gateway, source], [priority, mtu, window], gateway_on_link))| Route {
            to,
            gateway,
            gateway_on_link,
            source,
            priority,
            mtu,
            window,
        },
    )
}

fn card() -> impl Strategy<Value = Card> {
    let addresses = prop::collection::vec(address(), 0..3);
    let neighbour = any::<(IpAddr, [u8; 6])>().prop_map(|(ip, mac)| Neighbour { ip, mac });
    let neighbours = prop::collection::vec(neighbour, 0..3);
    (text(), addresses, neighbours).prop_map(|(interface, addresses, neighbours)| Card {
        interface,
        addresses,
        neighbours,
    })
}

fn boot() -> impl Strategy<Value = Boot> {
    let entropy = prop::collection::vec(any::<u8>(), 0..80);
    let scratch = prop_oneof![Just(Scratch::Disk), Just(Scratch::Tmpfs)];
    (
        text(),
        any::<u64>(),
        entropy,
        any::<u8>(),
        scratch,
        (
            prop::collection::vec(cache(), 0..4),
            prop::collection::vec(card(), 0..3),
            prop::collection::vec((any::<u8>(), route()), 0..3),
            any::<bool>(),
        ),
        (
            limits(),
            prop::collection::vec((text(), text()), 0..3),
            prop::option::of(text()),
            prop::option::of(text()),
        ),
    )
        .prop_map(
            |(
                hostname,
                clock_ns,
                entropy,
                cpus,
                scratch,
                (shares, cards, routes, debug),
                (limits, sysctls, resolv, hosts),
            )| {
                Boot {
                    hostname,
                    resolv,
                    hosts,
                    clock_ns,
                    entropy,
                    cpus,
                    scratch,
                    cards,
                    routes,
                    shares,
                    limits,
                    sysctls,
                    debug,
                }
            },
        )
}

fn to_guest() -> impl Strategy<Value = ToGuest> {
    prop_oneof![
        boot().prop_map(|boot| ToGuest::Boot(Box::new(boot))),
        (any::<u32>(), app()).prop_map(|(task, app)| ToGuest::Start {
            task,
            app: Box::new(app)
        }),
        (any::<u32>(), entry()).prop_map(|(task, entry)| ToGuest::Enter {
            task,
            entry: Box::new(entry)
        }),
        any::<(u32, i32)>().prop_map(|(task, signal)| ToGuest::Signal { task, signal }),
        (any::<u32>(), window()).prop_map(|(task, window)| ToGuest::Resize { task, window }),
        Just(ToGuest::PowerOff),
    ]
}

fn to_host() -> impl Strategy<Value = ToHost> {
    let status = prop_oneof![
        any::<u8>().prop_map(Status::Code),
        any::<u8>().prop_map(Status::Signal)
    ];
    prop_oneof![
        any::<u32>().prop_map(|version| ToHost::Hello { version }),
        any::<u32>().prop_map(|task| ToHost::Started { task }),
        (any::<u32>(), any::<u8>(), text()).prop_map(|(task, code, reason)| ToHost::NotStarted {
            task,
            code,
            reason
        }),
        (any::<u32>(), status, any::<bool>()).prop_map(|(task, status, memory_exceeded)| {
            ToHost::Exited {
                task,
                status,
                memory_exceeded,
            }
        }),
        text().prop_map(|reason| ToHost::Failed { reason }),
    ]
}

fn wire<M: Serialize>(messages: &[M]) -> Vec<u8> {
    let mut wire = Vec::new();
    for message in messages {
        send(&mut wire, message).unwrap();
    }
    wire
}

/// What `take` makes of bytes that arrive in pieces: the messages before the first fault, and whether there was one.
fn taken<M: DeserializeOwned>(wire: &[u8], piece: usize) -> (Vec<M>, bool) {
    let (mut arrived, mut messages) = (Vec::new(), Vec::new());
    for part in wire.chunks(piece) {
        arrived.extend_from_slice(part);
        match take(&mut arrived) {
            Ok(more) => messages.extend(more),
            Err(_) => return (messages, true),
        }
    }
    (messages, false)
}

/// What `receive` makes of them; a stream that ends within a message is no fault, more could come.
fn received<M: DeserializeOwned>(mut wire: &[u8]) -> (Vec<M>, bool) {
    let mut messages = Vec::new();
    loop {
        match receive(&mut wire) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, false),
            Err(error) => return (messages, error.kind() != io::ErrorKind::UnexpectedEof),
        }
    }
}

/// Both readers come to the same, and what they took is what it says when it is sent on.
fn agree<M>(wire: &[u8]) -> Result<(), TestCaseError>
where
    M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    // Byte by byte no message is lost to a fault that arrived together with it.
    let (messages, faulty) = taken::<M>(wire, 1);
    prop_assert_eq!(received::<M>(wire), (messages, faulty));
    let (messages, _) = taken::<M>(wire, 1);
    prop_assert_eq!(taken::<M>(&self::wire(&messages), 7), (messages, false));
    Ok(())
}

/// Frames whose JSON has faults, behind lengths that are right.
fn damaged_frames<M: Serialize>(messages: &[M], faults: &[hostile::JsonFault]) -> Vec<u8> {
    let documents: Vec<Value> = messages
        .iter()
        .map(|message| {
            let mut document = serde_json::to_value(message).unwrap();
            damage_json(&mut document, faults);
            document
        })
        .collect();
    wire(&documents)
}

proptest! {
    #[test]
    fn messages_to_the_guest_in_any_pieces_arrive(
        messages in prop::collection::vec(to_guest(), 0..5), piece in 1usize..100
    ) {
        prop_assert_eq!(taken(&wire(&messages), piece), (messages, false));
    }

    #[test]
    fn messages_to_the_host_in_any_pieces_arrive(
        messages in prop::collection::vec(to_host(), 0..8), piece in 1usize..100
    ) {
        prop_assert_eq!(taken(&wire(&messages), piece), (messages, false));
    }

    #[test]
    fn frames_with_faults_are_read_alike_by_both_readers_of_the_guest(
        messages in prop::collection::vec(to_guest(), 1..4), faults in faults(4), json_faults in json_faults(2)
    ) {
        let mut wire = damaged_frames(&messages, &json_faults);
        damage(&mut wire, &faults);
        agree::<ToGuest>(&wire)?;
    }

    #[test]
    fn frames_with_faults_are_read_alike_by_both_readers_of_the_host(
        messages in prop::collection::vec(to_host(), 1..4), faults in faults(4), json_faults in json_faults(2)
    ) {
        let mut wire = damaged_frames(&messages, &json_faults);
        damage(&mut wire, &faults);
        agree::<ToHost>(&wire)?;
    }

    #[test]
    fn frames_of_any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        agree::<ToGuest>(&bytes)?;
        agree::<ToHost>(&bytes)?;
    }
}

#[test]
fn take_message_too_long_is_an_error() {
    assert!(take::<ToGuest>(&mut vec![255; 8]).is_err());
}

#[test]
fn send_message_too_long_is_an_error() {
    let reason = "x".repeat(MAX_MESSAGE_BYTES as usize);
    assert!(send(io::sink(), &ToHost::Failed { reason }).is_err());
}

/// A guest fills the host's buffer with the shortest messages there are: moving the rest for each would be quadratic.
#[test]
fn take_many_small_messages_moves_each_byte_once() {
    let frame = wire(&[ToHost::Hello { version: 1 }]);
    let mut arrived = frame.repeat(MAX_FRAME_BYTES / frame.len());
    let begun = std::time::Instant::now();
    let messages = take::<ToHost>(&mut arrived).unwrap();
    assert_eq!(messages.len(), MAX_FRAME_BYTES / frame.len());
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
}
