//! Servers of App Container images that do what they like: each fetch ends in time, and takes no more than it may.

use std::fs;
use std::time::{Duration, Instant};

use discovery::{Access, Client, Download, Fetched, Patience, Remembered};

#[path = "../../registry/tests/hostile/double.rs"]
mod double;

use double::{Answer, Body, Double};

/// Nothing here takes longer, whatever the server does.
const DEADLINE: Duration = Duration::from_secs(30);

/// What an image may have, in bytes.
const LIMIT: u64 = 100_000;

fn client() -> Client {
    let patience = Patience {
        answer: Duration::from_millis(300),
        pace: Duration::from_millis(300),
        attempts: 3,
        pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(10),
        ..Patience::default()
    };
    let access = Access {
        http: true,
        any_certificate: false,
    };
    Client::new(access, patience).expect("a client")
}

/// A folder that one URL is fetched into.
struct Place {
    folder: tempfile::TempDir,
    client: Client,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            client: client(),
        }
    }

    fn fetch(&self, double: &Double, known: &Remembered) -> anyhow::Result<Fetched> {
        let url = format!("http://{}/image.aci", double.host());
        let download = Download {
            client: &self.client,
            url: &url,
            folder: self.folder.path(),
            limit: LIMIT,
        };
        let begun = Instant::now();
        let fetched = download.run(known, &|_, _| {});
        assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
        fetched
    }

    #[track_caller]
    fn refused(&self, double: &Double, reason: &str) {
        let error = self
            .fetch(double, &Remembered::default())
            .expect_err("no image");
        let error = format!("{error:#}");
        assert!(error.contains(reason), "{reason:?} not in: {error}");
        let part = fs::metadata(self.folder.path().join("part"));
        assert!(part.map_or(0, |part| part.len()) <= LIMIT);
    }

    /// The bytes that came.
    #[track_caller]
    fn fetched(&self, double: &Double) -> Vec<u8> {
        match self
            .fetch(double, &Remembered::default())
            .expect("an image")
        {
            Fetched::File { path, .. } => fs::read(path).expect("a file"),
            Fetched::Unchanged { .. } => panic!("nothing was known"),
        }
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count)
        .map(|at| u8::try_from(at % 251).expect("small"))
        .collect()
}

#[test]
fn image_that_stalls_trickles_or_never_comes_is_given_up() {
    for body in [
        Body::Silent,
        Body::Lost,
        Body::Stalled(bytes(500)),
        Body::Trickle(Duration::from_millis(20)),
        Body::Broken {
            bytes: bytes(10),
            said: 5000,
        },
    ] {
        let answer = Answer::of(200, body).with("etag", "\"mark\"");
        let double = Double::new(move |_| answer.clone());
        Place::new().refused(&double, "given up after 3 attempts");
        assert_eq!(double.count("/image.aci"), 3);
    }
}

#[test]
fn image_without_an_end_or_larger_than_allowed_is_not_kept() {
    for body in [
        Body::Endless(bytes(1000)),
        Body::Unmeasured(bytes(100_001)),
        Body::Whole(bytes(100_001)),
        Body::Broken {
            bytes: bytes(1),
            said: usize::MAX >> 1,
        },
    ] {
        let double = Double::new(move |_| Answer::of(200, body.clone()));
        let place = Place::new();
        place.refused(&double, "more than the 100000 bytes allowed");
        assert!(!place.folder.path().join("part").exists());
        assert_eq!(double.count("/image.aci"), 1);
    }
}

#[test]
fn page_without_an_end_or_that_stalls_is_refused() {
    for (body, reason) in [
        (
            Body::Endless(bytes(1000)),
            "more than the 5000 bytes allowed",
        ),
        (Body::Stalled(bytes(1000)), "given up after 3 attempts"),
        (
            Body::Trickle(Duration::from_millis(20)),
            "given up after 3 attempts",
        ),
    ] {
        let double = Double::new(move |_| Answer::of(200, body.clone()));
        let url = format!("http://{}/page", double.host());
        let begun = Instant::now();
        let error = client().document(&url, 5000).expect_err("no page");
        assert!(begun.elapsed() < DEADLINE);
        assert!(format!("{error:#}").contains(reason), "{error:#}");
    }
}

#[test]
fn server_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    for (status, asked) in [(503, 3), (429, 3), (501, 1), (404, 1), (403, 1)] {
        let double = Double::new(move |_| Answer::new(status, "no"));
        Place::new().refused(&double, &status.to_string());
        assert_eq!(double.count("/image.aci"), asked, "{status}");
    }
    let double = Double::new(|request| match request.before {
        0 => Answer::new(503, "busy").with("retry-after", "1"),
        _ => Answer::new(200, "image"),
    });
    assert_eq!(Place::new().fetched(&double), b"image");
    assert!(
        double
            .requests()
            .iter()
            .all(|request| request.method == "GET")
    );
}

#[test]
fn image_in_pieces_is_put_together_where_the_server_can_and_fetched_anew_where_not() {
    let piece = |from: usize, honest: bool| {
        let (all, end) = (bytes(3000), (from + 1200).min(3000));
        let (status, said) = if from == 0 {
            (200, 3000)
        } else {
            (206, 3000 - from)
        };
        let body = Body::Broken {
            bytes: all[from..end].to_vec(),
            said,
        };
        let shown = if honest { from } else { from - 1 };
        Answer::of(status, body)
            .with("etag", "\"mark\"")
            .with("content-range", format!("bytes {shown}-2999/3000"))
    };
    let double = Double::new(move |request| piece(request.from().unwrap_or(0), true));
    assert_eq!(Place::new().fetched(&double), bytes(3000));
    // One that sends other bytes than it was asked for is not believed.
    let double = Double::new(move |request| match request.from() {
        None if request.before == 0 => piece(0, true),
        None => Answer::new(200, bytes(3000)),
        Some(from) => piece(from, false),
    });
    assert_eq!(Place::new().fetched(&double), bytes(3000));
    // Without a mark nobody knows what a piece is a piece of.
    let double = Double::new(move |request| match request.before {
        0 => Answer::of(
            200,
            Body::Broken {
                bytes: bytes(1200),
                said: 3000,
            },
        ),
        _ if request.from().is_none() => Answer::new(200, bytes(3000)),
        _ => Answer::new(400, "a range of what?"),
    });
    assert_eq!(Place::new().fetched(&double), bytes(3000));
}

#[test]
fn image_that_has_not_changed_is_said_so_with_its_age() {
    let double = Double::new(|request| match request.header("if-none-match") {
        Some("\"mark\"") => Answer::new(304, "").with("cache-control", "max-age=5"),
        _ => Answer::new(200, "image").with("etag", "\"mark\""),
    });
    let known = Remembered {
        etag: Some("\"mark\"".into()),
    };
    let fetched = Place::new().fetch(&double, &known).expect("an answer");
    let Fetched::Unchanged { max_age } = fetched else {
        panic!("fetched again");
    };
    assert_eq!(max_age, Some(Duration::from_secs(5)));
    // Who was not asked whether it has changed has no say in it.
    let double = Double::new(|_| Answer::new(304, ""));
    Place::new().refused(&double, "304");
}
