//! Blobs that are lies, too long, too short, too slow, or come in pieces.

use std::path::Path;
use std::time::Duration;

use crate::double::{Answer, Body, Double, Request};
use crate::image::{Host, Served, broken, digest, layer, ranged};

/// An image of one layer, which `lie` answers for.
fn lying(lie: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) -> (Double, String) {
    let bytes = layer(1, 3000);
    let served = Served::new(std::slice::from_ref(&bytes));
    let name = digest(&bytes);
    let end = name.clone();
    let double = Double::new(move |request| {
        let honest = served.answer(request);
        if request.path.ends_with(&end) {
            lie(request, honest)
        } else {
            honest
        }
    });
    (double, name)
}

fn content(layout: &Path, digest: &str) -> Vec<u8> {
    std::fs::read(layout.join("blobs").join(digest.replace(':', "/"))).expect("a blob")
}

#[test]
fn honest_registry_is_pulled_from_and_each_blob_asked_for_once() {
    let layers = [layer(1, 3000), layer(2, 5000), layer(1, 3000), layer(3, 0)];
    let served = Served::new(&layers);
    let double = Double::new(move |request| served.answer(request));
    let host = Host::new();
    for _ in 0..2 {
        let layout = host.pull(&double).expect("a pull");
        for bytes in &layers {
            assert_eq!(content(&layout, &digest(bytes)), *bytes);
            assert!(double.count(&digest(bytes)) <= 1);
        }
    }
}

#[test]
fn blob_of_other_content_is_refused_and_not_kept() {
    let (double, name) = lying(|_, _| Answer::new(200, layer(9, 3000)));
    let host = Host::new();
    let error = host.refused(&double);
    assert!(
        error.contains("wrong digest") && error.contains(&name),
        "{error}"
    );
    assert_eq!(
        host.kept().len(),
        1,
        "the configuration alone: {:?}",
        host.kept()
    );
}

#[test]
fn blob_longer_than_promised_is_refused_before_it_is_read() {
    for body in [
        Body::Whole(layer(1, 3001)),
        Body::Unmeasured(layer(1, 3001)),
        Body::Endless(layer(1, 1000)),
        Body::Broken {
            bytes: Vec::new(),
            said: usize::MAX >> 1,
        },
    ] {
        let (double, _) = lying(move |_, _| Answer::of(200, body.clone()));
        let host = Host::new();
        let error = host.refused(&double);
        assert!(error.contains("more than the 3000 bytes"), "{error}");
        assert!(host.kept().iter().all(|(_, bytes)| *bytes <= 3000));
    }
}

#[test]
fn blob_that_breaks_off_is_gone_on_with_where_it_ended() {
    let (double, name) = lying(|_, honest| broken(honest, 1100));
    let host = Host::new();
    let layout = host.pull(&double).expect("a pull in three pieces");
    assert_eq!(content(&layout, &name), layer(1, 3000));
    let ranges: Vec<_> = double
        .requests()
        .iter()
        .filter(|request| request.path.ends_with(&name))
        .map(Request::from)
        .collect();
    assert_eq!(ranges, [None, Some(1100), Some(2200)]);
}

#[test]
fn blob_that_breaks_off_and_cannot_be_gone_on_with_is_given_up() {
    let (double, name) = lying(|_, _| broken(Answer::new(200, layer(1, 3000)), 1100));
    let error = Host::new().refused(&double);
    assert!(error.contains("given up after 3 attempts"), "{error}");
    assert_eq!(double.count(&name), 3);
}

#[test]
fn blob_that_begins_elsewhere_than_asked_is_refused() {
    let (double, _) = lying(|request, honest| match request.from() {
        Some(_) => ranged(0, &layer(1, 3000), 3000),
        None => broken(honest, 1000),
    });
    let error = Host::new().refused(&double);
    assert!(error.contains("for bytes from 1000 on"), "{error}");
}

#[test]
fn part_that_a_killed_pull_left_is_gone_on_with() {
    let (double, name) = lying(|_, honest| honest);
    let host = Host::new();
    host.leave_part(&name, &layer(1, 2000));
    let layout = host.pull(&double).expect("a pull");
    assert_eq!(content(&layout, &name), layer(1, 3000));
    assert_eq!(double.requests().last().and_then(Request::from), Some(2000));
}

#[test]
fn part_that_is_damaged_or_too_long_is_fetched_anew() {
    for part in [
        layer(7, 2000),
        layer(1, 3000)[..2000].repeat(2),
        layer(7, 3000),
    ] {
        let (double, name) = lying(|_, honest| honest);
        let host = Host::new();
        host.leave_part(&name, &part);
        let layout = host.pull(&double).expect("a pull");
        assert_eq!(content(&layout, &name), layer(1, 3000));
    }
}

#[test]
fn registry_that_stalls_or_trickles_is_given_up() {
    for body in [
        Body::Silent,
        Body::Stalled(layer(1, 1000)),
        Body::Trickle(Duration::from_millis(20)),
    ] {
        let (double, _) = lying(move |_, _| Answer::of(200, body.clone()));
        let error = Host::new().refused(&double);
        assert!(error.contains("given up after 3 attempts"), "{error}");
    }
}

#[test]
fn one_layer_that_fails_ends_the_others() {
    let layers = [layer(1, 3000), layer(2, 3000), layer(3, 3000)];
    let served = Served::new(&layers);
    let bad = digest(&layers[0]);
    let double = Double::new(move |request| match served.answer(request) {
        _ if request.path.ends_with(&bad) => Answer::new(403, "not yours"),
        honest if request.path.contains("/blobs/") && request.header("range").is_none() => {
            match honest.body {
                Body::Whole(bytes) if bytes.len() == 3000 => {
                    Answer::of(200, Body::Stalled(bytes[..2000].to_vec()))
                }
                _ => honest,
            }
        }
        honest => honest,
    });
    let error = Host::new().refused(&double);
    assert!(error.contains("not yours"), "{error}");
}

#[test]
fn layers_larger_than_an_image_may_be_are_not_asked_for() {
    for sizes in [[65 << 20, 1], [u64::MAX, u64::MAX]] {
        let served = Served::new(&[layer(1, 10), layer(2, 10)]).changed(|manifest| {
            for (index, size) in sizes.iter().enumerate() {
                manifest["layers"][index]["size"] = (*size).into();
            }
        });
        let double = Double::new(move |request| served.answer(request));
        let error = Host::new().refused(&double);
        assert!(error.contains("--max-image-size"), "{error}");
        assert_eq!(double.requests().len(), 1, "the manifest");
    }
}
