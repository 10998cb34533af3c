//! Errors of every class, and redirects.

use crate::double::{Answer, Body, Double};
use crate::image::{Host, Served, layer};

const REASON: &str = r#"{"errors":[{"code":"SOME_CODE","message":"the registry's own words"}]}"#;

#[test]
fn refusal_of_every_class_is_shown_in_the_registrys_words() {
    for status in [
        400, 401, 403, 404, 405, 409, 410, 418, 429, 451, 500, 501, 502, 503, 504, 599,
    ] {
        let double = Double::new(move |_| Answer::new(status, REASON));
        let error = Host::new().refused(&double);
        let shown = ["the registry's own words", "SOME_CODE", &status.to_string()];
        assert!(shown.iter().all(|text| error.contains(text)), "{error}");
        let passes = status == 429 || (status >= 500 && status != 501);
        assert_eq!(
            double.requests().len(),
            if passes { 3 } else { 1 },
            "{status}"
        );
    }
}

#[test]
fn refusal_without_end_or_pace_is_not_waited_for() {
    for body in [
        Body::Endless(b"no ".to_vec()),
        Body::Stalled(b"no".to_vec()),
        Body::Trickle(std::time::Duration::from_millis(20)),
    ] {
        let double = Double::new(move |_| Answer::of(404, body.clone()));
        let error = Host::new().refused(&double);
        assert!(error.contains("404") && error.len() < 1000, "{error}");
    }
}

#[test]
fn registry_that_is_busy_is_asked_again() {
    let served = Served::new(&[layer(1, 100)]);
    let double = Double::new(move |request| match request.before {
        0 => Answer::new(429, REASON).with("Retry-After", "1"),
        1 => Answer::new(503, REASON),
        _ => served.answer(request),
    });
    Host::new().pull(&double).expect("a pull in the end");
}

#[test]
fn registry_that_asks_for_an_age_is_not_waited_for_so_long() {
    let double = Double::new(|_| Answer::new(429, REASON).with("Retry-After", "86400"));
    assert!(Host::new().refused(&double).contains("429"));
}

#[test]
fn connection_that_is_lost_before_an_answer_is_made_again() {
    let served = Served::new(&[layer(1, 100)]);
    let double = Double::new(move |request| match request.before {
        0 => Answer::of(200, Body::Lost),
        _ => served.answer(request),
    });
    Host::new().pull(&double).expect("a pull in the end");
}

#[test]
fn redirects_in_a_circle_end() {
    let double = Double::new(|request| {
        Answer::new(307, "").with("Location", format!("{}?again", request.path))
    });
    let error = Host::new().refused(&double);
    assert!(error.contains("redirect"), "{error}");
    assert!(double.requests().len() < 10, "{}", double.requests().len());
}

#[test]
fn redirect_to_another_host_is_followed() {
    let served = Served::new(&[layer(1, 100)]);
    let elsewhere = served.clone();
    let elsewhere = Double::new(move |request| elsewhere.answer(request));
    let host = elsewhere.host();
    let double = Double::new(move |request| match request.path.contains("/blobs/") {
        true => Answer::new(307, "").with("Location", format!("http://{host}{}", request.path)),
        false => served.answer(request),
    });
    Host::new()
        .pull(&double)
        .expect("a pull by way of a redirect");
    assert!(elsewhere.requests().len() == 2);
}
