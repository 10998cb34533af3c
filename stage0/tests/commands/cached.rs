//! When servers are asked again for what the store has: what they say of its age, and what rkt's flags say of both.

use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::fetching::{Bench, aci};
use crate::web::{ok, send, status};

const URL: &str = "https://store.example.com/app.aci";

/// What the server has by now.
#[derive(Clone)]
struct Served {
    image: Vec<u8>,
    mark: &'static str,
    control: &'static str,
    is_down: bool,
}

struct Server {
    bench: Bench,
    served: Arc<Mutex<Served>>,
}

impl Server {
    /// One whose image is of such an age.
    fn new(control: &'static str) -> Self {
        let served = Arc::new(Mutex::new(Served {
            image: aci("app", &json!({})),
            mark: "\"one\"",
            control,
            is_down: false,
        }));
        let now = Arc::clone(&served);
        let bench = Bench::new(move |request, to| {
            let served = now.lock().expect("a lock").clone();
            let headers = format!(
                "etag: {}\r\ncache-control: {}\r\n",
                served.mark, served.control
            );
            if served.is_down {
                return status(to, "404 Not Found");
            }
            if request.header("if-none-match") == Some(served.mark) {
                let answer =
                    format!("HTTP/1.1 304 Not Modified\r\nconnection: close\r\n{headers}\r\n");
                return send(to, &[answer.as_bytes()]);
            }
            ok(to, &headers, &served.image);
        });
        Self { bench, served }
    }

    fn now(&self, change: impl FnOnce(&mut Served)) {
        change(&mut self.served.lock().expect("a lock"));
    }

    /// The id, or what is said instead; and how often the server was asked.
    fn pull(&self, flags: &[&str]) -> (Result<String, String>, usize) {
        let words = [
            &["--insecure-options=image", "image", "pull"],
            flags,
            &[URL],
        ]
        .concat();
        let output = self.bench.run(&words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let id = match output.status.code() {
            Some(0) => Ok(text(&output.stdout)),
            Some(254) => Err(text(&output.stderr)),
            _ => panic!("{output:?}"),
        };
        (id, self.bench.web.asked().len())
    }

    /// Lets so many seconds go by.
    fn age(&self, seconds: u64) {
        let downloads = self.bench.host.path("data/store/downloads");
        let mut folders = fs::read_dir(downloads).expect("downloads");
        let record = folders.next().expect("one").expect("a folder").path();
        let record = record.join("record.json");
        let text = fs::read_to_string(&record).expect("a record");
        let mut known: Value = serde_json::from_str(&text).expect("JSON");
        known["asked"] = (known["asked"].as_u64().expect("seconds") - seconds).into();
        fs::write(record, known.to_string()).expect("a record");
    }
}

#[test]
fn image_is_not_asked_for_again_before_its_age_is_over() {
    let server = Server::new("public, max-age=600, must-revalidate");
    let (first, asked) = server.pull(&[]);
    assert_eq!(asked, 1);
    let first = first.expect("an image");
    assert_eq!(server.pull(&[]), (Ok(first.clone()), 0));
    server.age(300);
    assert_eq!(server.pull(&[]), (Ok(first.clone()), 0));
    server.age(300);
    // Once: that nothing has changed holds as long again.
    assert_eq!(server.pull(&[]), (Ok(first.clone()), 1));
    assert_eq!(server.pull(&[]), (Ok(first), 0));
}

#[test]
fn image_whose_age_is_over_is_not_taken_for_current_where_the_server_does_not_say_so() {
    let server = Server::new("max-age=600, must-revalidate");
    let first = server.pull(&[]).0.expect("an image");
    server.age(601);
    server.now(|served| served.is_down = true);
    let (told, asked) = server.pull(&[]);
    assert_eq!(asked, 1);
    let told = told.expect_err("no image");
    assert!(told.contains("404 Not Found"), "{told}");
    assert_eq!(server.pull(&["--pull-policy=new"]), (Ok(first), 0));
}

#[test]
fn image_without_an_age_is_asked_for_by_its_mark_each_time() {
    for control in ["no-cache", "max-age=600, no-store", "max-age=0"] {
        let server = Server::new(control);
        let first = server.pull(&[]).0.expect("an image");
        assert_eq!(server.pull(&[]), (Ok(first.clone()), 1), "{control}");
        let more = json!({"annotations": [{"name": "note", "value": "newer"}]});
        server.now(|served| (served.mark, served.image) = ("\"two\"", aci("app", &more)));
        let (second, asked) = server.pull(&[]);
        assert!(
            second.is_ok_and(|id| id != first) && asked == 1,
            "{control}"
        );
    }
}

#[test]
fn what_is_known_of_an_image_goes_with_the_image() {
    let server = Server::new("no-cache");
    let id = server.pull(&[]).0.expect("an image");
    let gc = |flags: &[&str]| {
        let words = [&["image", "gc", "--grace-period=0"], flags].concat();
        server.bench.host.stdout(&words)
    };
    let folders = || {
        let downloads = server.bench.host.path("data/store/downloads");
        fs::read_dir(downloads).expect("downloads").count()
    };
    // It has a name, so it stays.
    assert_eq!((gc(&[]), folders()), (String::new(), 1));
    assert_eq!(server.pull(&["--store-only"]), (Ok(id.clone()), 0));
    assert_eq!((gc(&["--all"]).trim(), folders()), (id.as_str(), 0));
}

#[test]
fn flags_of_rkt_mean_its_pull_policies() {
    let server = Server::new("no-cache");
    let (told, asked) = server.pull(&["--store-only"]);
    assert!(told.expect_err("no image").contains("--pull-policy=never") && asked == 0);
    let first = server.pull(&["--no-store", "--pull-policy=never"]);
    assert_eq!((first.0.is_ok(), first.1), (true, 1));
    let id = first.0.expect("an image");
    for (flags, asked) in [
        (&["--store-only"][..], 0),
        (&["--store-only", "--pull-policy=update"], 0),
        (&["--no-store"], 1),
        (&["--no-store=false", "--pull-policy=new"], 0),
    ] {
        assert_eq!(server.pull(flags), (Ok(id.clone()), asked), "{flags:?}");
    }
    let (told, _) = server.pull(&["--store-only", "--no-store"]);
    assert!(told.expect_err("usage").contains("cannot be used with"));
    let stage1 = format!("--stage1={}", server.bench.host.path("stage1").display());
    for command in ["prepare", "run"] {
        for (flag, asked) in [
            ("--store-only", 0),
            ("--pull-policy=new", 0),
            ("--no-store", 1),
        ] {
            let words = ["--insecure-options=image", command, &stage1, flag, URL];
            let code = server.bench.run(&words).status.code();
            assert!(matches!(code, Some(0 | 42)), "{command} {flag}: {code:?}");
            assert_eq!(server.bench.web.asked().len(), asked, "{command} {flag}");
        }
    }
}
