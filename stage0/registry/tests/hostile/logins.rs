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

/// A host that has an identity token for `registry`, in a file as `docker login` writes it.
fn identified(registry: &Double, token: &str) -> (Host, tempfile::TempDir) {
    let (mut host, folder) = (Host::new(), tempfile::tempdir().expect("a folder"));
    let file = folder.path().join("config.json");
    let login = serde_json::json!({"auths": {registry.host(): {"identitytoken": token}}});
    std::fs::write(&file, login.to_string()).expect("a file");
    host.options.authfile = Some(file);
    (host, folder)
}

#[test]
fn identity_token_is_exchanged_by_post_and_the_registry_never_sees_it() {
    let (registry, login) = guarded(|request| match request.method.as_str() {
        "POST" => Answer::new(200, r#"{"access_token":"token","refresh_token":"other"}"#),
        _ => Answer::new(405, "post it"),
    });
    let (host, _folder) = identified(&registry, "my identity&scope=all");
    host.pull(&registry).expect("a pull with an identity token");
    let requests = login.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/token")
    );
    let form = "application/x-www-form-urlencoded";
    assert_eq!(request.header("content-type"), Some(form));
    assert_eq!(request.header("authorization"), None);
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        "grant_type=refresh_token&client_id=fairing&service=test&scope=repository%3Atest%2Fimage%3Apull\
         &refresh_token=my+identity%26scope%3Dall"
    );
    let shown = |request: &Request| format!("{request:?}").contains("my identity");
    assert!(!registry.requests().iter().any(shown));
}

#[test]
fn identity_token_that_is_refused_is_told_without_it() {
    let (registry, _login) = guarded(|_| {
        Answer::new(
            400,
            r#"{"error":"invalid_grant","error_description":"refresh token is too old"}"#,
        )
    });
    let (host, _folder) = identified(&registry, "my-identity");
    let error = host.refused(&registry);
    assert!(error.contains("refresh token is too old"), "{error}");
    assert!(!error.contains("my-identity"), "{error}");
}

#[test]
fn identity_token_does_not_follow_a_redirect() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Double::new(|_| Answer::new(200, r#"{"access_token":"token"}"#));
        let to = format!("http://{}/token", elsewhere.host());
        let (registry, _login) =
            guarded(move |_| Answer::new(status, "").with("Location", to.clone()));
        let (host, _folder) = identified(&registry, "my-identity");
        let error = host.refused(&registry);
        assert!(error.contains(&status.to_string()), "{error}");
        assert!(
            elsewhere.requests().is_empty(),
            "{:?}",
            elsewhere.requests()
        );
    }
}

#[test]
fn times_of_a_token_that_no_clock_has_change_nothing() {
    for times in [
        r#""expires_in":0"#,
        r#""expires_in":-1"#,
        r#""expires_in":1e300"#,
        r#""expires_in":99999999999999999999999999"#,
        r#""expires_in":"soon""#,
        r#""expires_in":null"#,
        r#""expires_in":60,"issued_at":"2999-01-01T00:00:00Z""#,
        r#""expires_in":60,"issued_at":"1970-01-01T00:00:00Z""#,
        r#""issued_at":"yesterday""#,
        r#""issued_at":[1]"#,
    ] {
        let (registry, login) =
            guarded(move |_| Answer::new(200, format!(r#"{{"token":"token",{times}}}"#)));
        Host::new()
            .pull(&registry)
            .expect("a pull, whatever the time");
        assert_eq!(login.requests().len(), 1, "{times}");
    }
}

#[test]
fn token_that_is_never_good_is_renewed_once_a_request() {
    let login = Double::new(|request| {
        Answer::new(
            200,
            format!(
                r#"{{"token":"token-{}","expires_in":3600}}"#,
                request.before
            ),
        )
    });
    let realm = format!("http://{}/token", login.host());
    let registry = Double::new(move |_| challenge(&realm));
    let error = Host::new().refused(&registry);
    assert!(error.contains("401"), "{error}");
    assert_eq!((login.requests().len(), registry.requests().len()), (1, 2));
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

#[test]
fn refusal_of_a_login_server_of_every_class_is_shown_in_its_words() {
    for status in [400, 401, 403, 404, 405, 429, 451, 500, 501, 502, 503, 599] {
        let words = r#"{"details":"the login server's own words"}"#;
        let (registry, _login) = guarded(move |_| Answer::new(status, words));
        let error = Host::new().refused(&registry);
        let shown = [
            "the login server's own words",
            "login server 127.0.0.1",
            &status.to_string(),
        ];
        assert!(shown.iter().all(|text| error.contains(text)), "{error}");
    }
}
