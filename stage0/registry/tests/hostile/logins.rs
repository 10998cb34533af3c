//! Login servers and what they are told.

use crate::double::{Answer, Body, Double, Request};
use crate::image::{Host, Served, layer};

/// What base64 makes of `user:secret`.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

fn challenge(realm: &str) -> Answer {
    let header = format!("Bearer realm=\"{realm}\",service=\"test\"");
    Answer::new(401, "").with("WWW-Authenticate", header)
}

/// A registry that wants the token `token`, of a login server that answers so.
fn guarded(login: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> (Double, Double) {
    let login = Double::new(login);
    let realm = format!("http://{}/token", login.host());
    let served = Served::new(&[layer(1, 100)]);
    let registry = Double::new(move |request| match request.header("authorization") {
        Some("Bearer token") => served.answer(request),
        _ => challenge(&realm),
    });
    (registry, login)
}

fn logged_in() -> Host {
    let mut host = Host::new();
    host.options.credentials = Some("user:secret".parse().expect("credentials"));
    host
}

#[test]
fn token_is_asked_for_once_with_what_it_is_for() {
    let (registry, login) = guarded(|_| Answer::new(200, r#"{"token":"token"}"#));
    Host::new()
        .pull(&registry)
        .expect("a pull with an anonymous token");
    let requests = login.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        requests[0].path,
        "/token?service=test&scope=repository%3Atest%2Fimage%3Apull"
    );
    assert_eq!(requests[0].header("authorization"), None);
}

#[test]
fn password_goes_to_the_login_server_and_the_registry_sees_the_token_alone() {
    let (registry, login) = guarded(|request| match request.header("authorization") {
        Some(BASIC) => Answer::new(200, r#"{"access_token":"token"}"#),
        _ => Answer::new(401, r#"{"details":"incorrect username or password"}"#),
    });
    logged_in().pull(&registry).expect("a pull with a password");
    assert_eq!(login.requests().len(), 1);
    let seen = registry.requests();
    assert!(
        seen.iter()
            .all(|request| request.header("authorization") != Some(BASIC))
    );
    let error = Host::new().refused(&registry);
    assert!(error.contains("incorrect username or password"), "{error}");
}

#[test]
fn token_that_expires_on_the_way_is_renewed() {
    let login = Double::new(|request| {
        Answer::new(200, format!(r#"{{"token":"token-{}"}}"#, request.before))
    });
    let realm = format!("http://{}/token", login.host());
    let served = Served::new(&[layer(1, 100), layer(2, 100), layer(3, 100)]);
    let registry = Double::new(move |request| {
        let fresh = match request.path.contains("/blobs/") {
            true => "Bearer token-1",
            false => "Bearer token-0",
        };
        match request.header("authorization") {
            // By the first thread that asks or, a moment later, by another.
            Some(token) if token == fresh || token > "Bearer token-1" => served.answer(request),
            _ => challenge(&realm),
        }
    });
    Host::new().pull(&registry).expect("a pull with two tokens");
}

#[test]
fn password_does_not_follow_a_redirect_to_another_host() {
    let served = Served::new(&[layer(1, 100)]);
    let elsewhere = served.clone();
    let elsewhere = Double::new(move |request| elsewhere.answer(request));
    let host = elsewhere.host().replace("127.0.0.1", "localhost");
    let registry = Double::new(move |request| match request.header("authorization") {
        Some(BASIC) if request.path.contains("/blobs/") => {
            Answer::new(307, "").with("Location", format!("http://{host}{}", request.path))
        }
        Some(BASIC) => served.answer(request),
        _ => Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    logged_in().pull(&registry).expect("a pull with a password");
    let seen = elsewhere.requests();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter()
            .all(|request| request.header("authorization").is_none())
    );
}

#[test]
fn login_server_that_misbehaves_is_given_up() {
    for (answer, reason) in [
        (
            Answer::of(200, Body::Endless(b" ".repeat(1000))),
            "more than the 262144 bytes",
        ),
        (Answer::new(200, "{}"), "gives no token"),
        (Answer::new(200, r#"{"token":"a\r\nX-Y: z"}"#), "no header"),
        (Answer::new(200, "token"), "not valid JSON"),
        (Answer::of(200, Body::Silent), "given up"),
        (Answer::new(500, "it burns"), "it burns"),
        (Answer::new(200, r#"{"token":"another"}"#), "401"),
    ] {
        let (registry, _login) = guarded(move |_| answer.clone());
        let error = Host::new().refused(&registry);
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn challenge_that_leads_nowhere_is_a_refusal() {
    for realm in ["", "file:///etc/passwd", "not an address", "gopher://x/"] {
        let registry = Double::new(move |_| challenge(realm));
        let error = Host::new().refused(&registry);
        assert!(
            error.contains("login server") || error.contains("401"),
            "{error}"
        );
    }
}
