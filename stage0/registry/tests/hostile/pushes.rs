//! Pushes to a registry that misbehaves.

use anyhow::Result;
use registry::{Access, push};

use crate::double::{Answer, Double, Request};
use crate::image::{Host, Served, digest, layer};

/// An image that was pulled, and goes to `double`.
fn pushed(host: &Host, double: &Double) -> Result<String> {
    let served = Served::new(&[layer(1, 3000)]);
    let source = Double::new(move |request| served.answer(request));
    let layout = host.pull(&source)?;
    let reference = format!("{}/test/pushed", double.host()).parse()?;
    let access = Access::new(host.options.clone())?;
    Ok(push(&access, &layout, &reference, &|_, _| {})?
        .digest
        .to_string())
}

/// A registry that lacks all blobs, takes them at `place`, and answers so to what is put.
fn taking(place: &'static str, put: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Double {
    Double::new(move |request| match request.method.as_str() {
        "HEAD" => Answer::new(404, ""),
        "POST" => Answer::new(202, "").with("Location", place),
        _ => put(request),
    })
}

#[test]
fn image_goes_where_the_registry_says_with_its_digest() {
    let double = taking("/v2/upload?state=x", |_| Answer::new(201, ""));
    let top = digest(&Served::new(&[layer(1, 3000)]).top);
    assert_eq!(pushed(&Host::new(), &double).expect("a push"), top);
    let layer = digest(&layer(1, 3000)).replace(':', "%3A");
    assert_eq!(
        double.count(&format!("/v2/upload?state=x&digest={layer}")),
        1
    );
    assert_eq!(double.count("/manifests/latest"), 1);
}

#[test]
fn upload_is_not_sent_to_another_host() {
    let elsewhere = "http://127.0.0.1:9/v2/upload";
    let double = taking(elsewhere, |_| Answer::new(201, ""));
    let error = format!(
        "{:#}",
        pushed(&Host::new(), &double).expect_err("elsewhere")
    );
    assert!(error.contains("sends uploads elsewhere"), "{error}");
}

#[test]
fn upload_that_fails_is_begun_anew_and_what_is_refused_is_told() {
    let double = taking("/v2/upload", |request| match request.before {
        0 => Answer::new(502, "busy"),
        _ => Answer::new(201, ""),
    });
    pushed(&Host::new(), &double).expect("a push in the end");
    let double = taking("/v2/upload", |request| {
        match request.path.contains("/manifests/") {
            true => Answer::new(400, r#"{"errors":[{"code":"MANIFEST_INVALID"}]}"#),
            false => Answer::new(201, ""),
        }
    });
    let error = format!("{:#}", pushed(&Host::new(), &double).expect_err("refused"));
    assert!(error.contains("MANIFEST_INVALID"), "{error}");
}

#[test]
fn refusal_of_every_class_is_told_wherever_in_a_push_it_comes() {
    const REASON: &str =
        r#"{"errors":[{"code":"SOME_CODE","message":"the registry's own words"}]}"#;
    for status in [
        400, 401, 403, 404, 405, 409, 411, 413, 416, 429, 451, 500, 501, 503,
    ] {
        for at in ["POST", "PUT", "manifests"] {
            let double = Double::new(move |request| {
                let manifest = request.path.contains("/manifests/");
                let here = match at {
                    "manifests" => manifest,
                    method => request.method == method && !manifest,
                };
                match request.method.as_str() {
                    _ if here => Answer::new(status, REASON),
                    "HEAD" => Answer::new(404, ""),
                    "POST" => Answer::new(202, "").with("Location", "/v2/upload"),
                    _ => Answer::new(201, ""),
                }
            });
            let error = pushed(&Host::new(), &double).expect_err("a refusal");
            let error = format!("{error:#}");
            let shown = ["the registry's own words", "SOME_CODE", &status.to_string()];
            assert!(
                shown.iter().all(|text| error.contains(text)),
                "{at}: {error}"
            );
        }
    }
}
