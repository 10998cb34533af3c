//! App Container images from web servers: discovered, verified, above others, and what servers do wrong.

use std::io::Write;

use serde_json::json;

use crate::fetching::{Bench, aci, serve, signed};
use crate::signer::Signer;
use crate::web::{Request, send, status};

const APP: &str = "example.com/app,version=1";
const URL: &str = "https://store.example.com/example.com/app-1.aci";

#[test]
fn name_is_discovered_verified_and_not_fetched_twice() {
    let (bench, _signer) = Bench::trusting(&[("app", json!({}))]);
    let id = bench.fetched(&[APP]);
    let asked = bench.web.asked();
    assert_eq!(asked.last().map(String::as_str), Some(URL));
    assert_eq!(bench.fetched(&["--pull-policy=new", APP]), id);
    assert!(bench.web.asked().is_empty());
    // The mark of what is there already says that nothing has changed.
    assert_eq!(bench.fetched(&[APP]), id);
    assert!(bench.web.asked().contains(&URL.to_owned()));
    assert_eq!(
        bench.fetched(&["--pull-policy=never", "example.com/app,version=1"]),
        id
    );
    let words = [
        "prepare",
        &format!("--stage1={}", bench.host.path("stage1").display()),
        APP,
    ];
    let prepared = bench.run(&words);
    assert!(prepared.status.success(), "{prepared:?}");
}

#[test]
fn image_without_a_good_signature_is_refused() {
    let signer = Signer::new();
    let mut files = signed(&signer, &[("app", json!({})), ("other", json!({}))]);
    let other = files["https://store.example.com/example.com/other-1.aci.asc"].clone();
    files.insert(format!("{URL}.asc"), other);
    files.insert(
        "https://store.example.com/unsigned.aci".into(),
        files[URL].clone(),
    );
    let bench = Bench::new(serve(files));
    bench.refused(
        &["example.com/other,version=1"],
        "not trusted for this image",
    );
    bench.trust(&signer);
    bench.refused(&[APP], "does not fit the file");
    bench.refused(&[URL], "does not fit the file");
    bench.refused(
        &["https://store.example.com/unsigned.aci"],
        "no signature to verify it with",
    );
    let output = bench.run(&["--insecure-options=image", "image", "pull", URL]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("is not verified"),
        "{said}"
    );
    // What was taken unverified is not taken for verified later.
    let again = bench.run(&["image", "pull", "--pull-policy=new", URL]);
    assert_eq!(again.status.code(), Some(254), "{again:?}");
}

#[test]
fn keys_of_the_page_are_trusted_when_told_to() {
    let signer = Signer::new();
    let bench = Bench::new(serve(signed(&signer, &[("app", json!({}))])));
    let unanswered = bench.run(&["trust", "--prefix=example.com/app"]);
    assert_eq!(unanswered.status.code(), Some(254), "{unanswered:?}");
    bench.refused(&[APP], "0 keys are trusted");
    let words = ["--trust-keys-from-https", "image", "pull", APP];
    let output = bench.run(&words);
    assert!(output.status.success(), "{output:?}");
    let kept = bench
        .host
        .path("config/trustedkeys/prefix.d/example.com/app");
    assert_eq!(std::fs::read_dir(kept).expect("a folder").count(), 1);
}

#[test]
fn image_of_another_name_than_asked_for_is_refused() {
    let signer = Signer::new();
    let mut files = signed(&signer, &[("other", json!({}))]);
    for end in ["", ".asc"] {
        let other =
            files[&format!("https://store.example.com/example.com/other-1.aci{end}")].clone();
        files.insert(format!("{URL}{end}"), other.clone());
        files.insert(
            format!("https://store.example.com/example.com/other-2.aci{end}"),
            other,
        );
    }
    let bench = Bench::new(serve(files));
    bench.trust(&signer);
    bench.refused(&[APP], "it is the image example.com/other");
    bench.refused(&["example.com/other,version=2"], "label version is not 2");
}

#[test]
fn servers_that_misbehave_are_refused() {
    let answer = |request: &Request, to: &mut dyn Write| match request.url.as_str() {
        "https://example.com/circle?ac-discovery=1" => {
            send(to, &[b"HTTP/1.1 302 Found\r\nlocation: /circle?ac-discovery=1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"]);
        }
        "https://example.com/down?ac-discovery=1" => {
            send(to, &[b"HTTP/1.1 302 Found\r\nlocation: http://example.com/x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"]);
        }
        "https://example.com/endless?ac-discovery=1" => {
            send(to, &[b"HTTP/1.1 200 OK\r\n\r\n"]);
            while to.write_all(&[b'x'; 4096]).is_ok() {}
        }
        "https://store.example.com/huge.aci" => {
            send(
                to,
                &[b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999999\r\n\r\n"],
            );
        }
        _ => status(to, "404 Not Found"),
    };
    let bench = Bench::new(answer);
    bench.refused(&["example.com/circle,a=b"], "more than 10 redirects");
    bench.refused(&["example.com/down,a=b"], "not HTTPS");
    bench.refused(&["example.com/endless,a=b"], "more than the 1048576 bytes");
    bench.refused(&["example.com/none,a=b"], "404 Not Found");
    bench.refused(
        &["http://store.example.com/x.aci"],
        "--insecure-options=http",
    );
    let insecure =
        |url: &str, reason: &str| bench.refused(&["--insecure-options=image", url], reason);
    insecure("https://store.example.com/huge.aci", "more than the");
    insecure("https://store.example.com/none.aci", "404 Not Found");
}

#[test]
fn certificate_that_nobody_vouches_for_is_refused() {
    let (bench, _signer) = Bench::trusting(&[("app", json!({}))]);
    let mut command = bench.host.command(&["image", "pull", APP]);
    let output = bench
        .web
        .seen_by(&mut command)
        .env("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
        .output();
    let output = output.expect("fairing starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(254) && said.contains("certificate"),
        "{said}"
    );
    assert!(bench.web.asked().is_empty());
}

/// A web whose image, signed, comes `piece` bytes at a time.
fn in_pieces(piece: usize) -> Bench {
    let signer = Signer::new();
    let files = signed(&signer, &[("app", json!({}))]);
    let image = files[URL].clone();
    let others = serve(files);
    let bench = Bench::new(move |request, to| {
        let range = request
            .header("range")
            .map(|range| range.trim_start_matches("bytes=").trim_end_matches('-'));
        let from = range.map_or(0, |from| from.parse().expect("a number"));
        if request.url != URL {
            return others(request, to);
        }
        let end = (from + piece).min(image.len());
        let head = match from {
            0 => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", image.len()),
            _ => format!(
                "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{}/{1}\r\ncontent-length: {}\r\n",
                image.len() - 1,
                image.len() - from
            ),
        };
        send(
            to,
            &[
                head.as_bytes(),
                b"etag: \"mark\"\r\n\r\n",
                &image[from..end],
            ],
        );
    });
    bench.trust(&signer);
    bench
}

#[test]
fn download_that_breaks_off_is_resumed() {
    let bench = in_pieces(100_000);
    bench.fetched(&[APP]);
    assert!(bench.web.asked().iter().filter(|url| *url == URL).count() >= 3);
}

#[test]
fn local_image_with_a_signature_is_verified() {
    let signer = Signer::new();
    let bench = Bench::new(|_, to| status(to, "404 Not Found"));
    bench.trust(&signer);
    let image = aci("app", &json!({}));
    let [path, good, bad] = ["app.aci", "good.asc", "bad.asc"].map(|name| bench.host.path(name));
    std::fs::write(&path, &image).expect("a file");
    std::fs::write(&good, signer.sign(&image)).expect("a file");
    std::fs::write(&bad, signer.sign(b"something else")).expect("a file");
    let path = path.to_str().expect("text");
    bench.refused(
        &[&format!("--signature={}", bad.display()), path],
        "does not fit the file",
    );
    bench.refused(
        &[
            &format!("--signature={}", bad.display()),
            &format!("file://{path}"),
        ],
        "does not fit",
    );
    bench.fetched(&[&format!("--signature={}", good.display()), path]);
    assert!(bench.web.asked().is_empty());
}
