//! App Container images above others: fetched with them, or not at all.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::fetching::{Bench, Files, PAGE, aci, archive, serve};
use crate::web::{ok, send, status};

/// What a manifest says that depends on these images.
fn on(names: &[&str]) -> Value {
    let dependency = |name: &&str| json!({"imageName": format!("example.com/{name}"), "labels": [{"name": "version", "value": "1"}]});
    json!({"dependencies": names.iter().map(dependency).collect::<Vec<_>>()})
}

fn names(bench: &Bench) -> Vec<String> {
    let list = bench
        .host
        .stdout(&["image", "list", "--fields=name", "--no-legend"]);
    let mut names: Vec<_> = list.lines().map(|name| name.trim().to_owned()).collect();
    names.sort_unstable();
    names
}

#[test]
fn dependencies_are_discovered_and_circles_refused() {
    let (bench, _signer) = Bench::trusting(&[
        ("app", on(&["middle"])),
        ("middle", on(&["base"])),
        ("base", json!({})),
        ("one", on(&["two"])),
        ("two", on(&["one"])),
    ]);
    bench.refused(&["example.com/one,version=1"], "depends on itself");
    bench.fetched(&["example.com/app,version=1"]);
    assert_eq!(
        names(&bench),
        [
            "example.com/app:1",
            "example.com/base:1",
            "example.com/middle:1"
        ]
    );
}

/// A web with small images that nobody has signed, each above others.
fn unsigned(images: &[(String, Vec<String>)]) -> Bench {
    let mut files = Files::new();
    files.insert("https://example.com?ac-discovery=1".into(), PAGE.into());
    files.insert("https://example.com/?ac-discovery=1".into(), PAGE.into());
    for (name, others) in images {
        let others: Vec<_> = others.iter().map(String::as_str).collect();
        let url = format!("https://store.example.com/example.com/{name}-1.aci");
        files.insert(url, archive(name, &on(&others), &[(name, b"x")]));
    }
    Bench::new(serve(files))
}

#[test]
fn images_deeper_or_more_than_allowed_are_refused_and_asked_for_no_further() {
    let chain = |length: usize| {
        let name = |at: usize| format!("a{at}");
        let link = |at| {
            (
                name(at),
                if at < length {
                    vec![name(at + 1)]
                } else {
                    vec![]
                },
            )
        };
        (0..=length).map(link).collect::<Vec<_>>()
    };
    let pull = |bench: &Bench, name: &str| {
        let name = format!("example.com/{name},version=1");
        let output = bench.run(&["--insecure-options=image", "image", "pull", &name]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let bench = unsigned(&chain(16));
    let (code, said) = pull(&bench, "a0");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(names(&bench).len(), 17);
    let bench = unsigned(&chain(40));
    let (code, said) = pull(&bench, "a0");
    assert_eq!(code, Some(254));
    assert!(
        said.contains("more than 16 images depend on one another"),
        "{said}"
    );
    assert!(names(&bench).is_empty());
    let asked = bench.web.asked();
    assert!(
        !asked.iter().any(|url| url.ends_with("/a18-1.aci")),
        "{asked:?}"
    );
    // Twelve above twelve each: each image has few.
    let names_of = |prefix: &str| {
        (0..12)
            .map(|at| format!("{prefix}{at}"))
            .collect::<Vec<_>>()
    };
    let mut wide = vec![("top".to_owned(), names_of("m"))];
    for middle in names_of("m") {
        let below = names_of(&format!("{middle}x"));
        wide.extend(below.iter().map(|name| (name.clone(), Vec::new())));
        wide.push((middle, below));
    }
    let bench = unsigned(&wide);
    let (code, said) = pull(&bench, "top");
    assert_eq!(code, Some(254));
    assert!(said.contains("more than 128 images"), "{said}");
    let images = bench
        .web
        .asked()
        .into_iter()
        .filter(|url| url.ends_with(".aci"));
    assert!(images.count() <= 130);
}

#[test]
fn image_of_a_file_fetches_what_it_depends_on_unless_it_must_not() {
    let (bench, _signer) = Bench::trusting(&[("middle", on(&["base"])), ("base", json!({}))]);
    let path = bench.host.path("app.aci");
    std::fs::write(&path, aci("app", &on(&["middle"]))).expect("a file");
    let path = path.to_str().expect("text");
    for flag in ["--store-only", "--pull-policy=never"] {
        let refused = bench.run(&["image", "import", flag, path]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(254), "{said}");
        assert!(
            said.contains("example.com/middle,version=1; import them first"),
            "{said}"
        );
        assert!(bench.web.asked().is_empty() && names(&bench).is_empty());
    }
    let imported = bench.run(&["image", "import", "--name=mine", path]);
    assert!(imported.status.success(), "{imported:?}");
    assert_eq!(
        names(&bench),
        ["example.com/base:1", "example.com/middle:1", "mine"]
    );
    let out = bench.host.path("out");
    bench
        .host
        .stdout(&["image", "render", "mine", out.to_str().expect("text")]);
    for name in ["app", "middle", "base"] {
        assert!(out.join(name).exists(), "{name}");
    }
    // By stdin it is read but once.
    bench
        .host
        .stdout(&["image", "rm", "mine", "example.com/middle:1"]);
    let mut command = bench.host.command(&["image", "import", "-"]);
    let output = command
        .stdin(std::fs::File::open(path).expect("a file"))
        .output();
    let said = output.expect("fairing starts").stderr;
    assert!(String::from_utf8_lossy(&said).contains("import them first"));
}

#[test]
fn image_whose_dependency_has_changed_is_made_anew_by_an_update() {
    let files = |content: &[u8]| {
        let mut files = Files::new();
        for page in [
            "https://example.com?ac-discovery=1",
            "https://example.com/?ac-discovery=1",
        ] {
            files.insert(page.into(), PAGE.into());
        }
        let middle = archive("middle", &on(&["base"]), &[("middle", b"x")]);
        let app = archive("app", &on(&["middle", "base"]), &[("app", b"x")]);
        let base = archive("base", &json!({}), &[("base", content)]);
        for (name, image) in [("app", app), ("middle", middle), ("base", base)] {
            let url = format!("https://store.example.com/example.com/{name}-1.aci");
            files.insert(url, image);
        }
        files
    };
    let served = Arc::new(Mutex::new(files(b"old")));
    let now = Arc::clone(&served);
    let bench = Bench::new(move |request, to| {
        let files = now.lock().expect("a lock").clone();
        let Some(body) = files.get(&request.url) else {
            return status(to, "404 Not Found");
        };
        let mark = format!("\"{}\"", body.len());
        if request.header("if-none-match") == Some(&mark) {
            return send(
                to,
                &[b"HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n"],
            );
        }
        ok(to, &format!("etag: {mark}\r\n"), body);
    });
    let pull = |policy: &str| {
        let words = [
            "--insecure-options=image",
            "image",
            "pull",
            policy,
            "example.com/app,version=1",
        ];
        let output = bench.run(&words);
        assert!(output.status.success(), "{output:?}");
        let asked = bench
            .web
            .asked()
            .into_iter()
            .filter(|url| url.ends_with(".aci"));
        let out = tempfile::tempdir_in(bench.host.path("")).expect("a folder");
        let out = out.path().join("out");
        bench.host.stdout(&[
            "image",
            "render",
            "example.com/app:1",
            out.to_str().expect("text"),
        ]);
        (
            std::fs::read(out.join("base")).expect("a file"),
            asked.count(),
        )
    };
    assert_eq!(pull("--pull-policy=new"), (b"old".to_vec(), 3));
    // Each is asked for once.
    assert_eq!(pull("--pull-policy=update"), (b"old".to_vec(), 3));
    *served.lock().expect("a lock") = files(&[b'n'; 5000]);
    assert_eq!(pull("--pull-policy=new"), (b"old".to_vec(), 0));
    // And once more those that lie above what has changed.
    assert_eq!(pull("--no-store"), (vec![b'n'; 5000], 5));
    assert_eq!(pull("--no-store"), (vec![b'n'; 5000], 3));
}
