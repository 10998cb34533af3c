//! registries.conf and files with logins. Input: the one, a zero byte, the other, a zero byte, and a name.
//!
//! What they lead to is asked, where nobody is: under `scripts/fuzz` the network has loopback alone.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use registry::{Access, Options, Patience, Reference, Verify};

/// Looks for the name as these files say.
pub fn run(input: &[u8]) {
    let mut parts = input.splitn(3, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (conf, logins, name) = (next(), next(), String::from_utf8_lossy(next()).into_owned());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("registries.conf"), conf).expect("room for a file");
    fs::write(path("auth.json"), logins).expect("room for a file");
    let variable = |name: &str| match name {
        "CONTAINERS_REGISTRIES_CONF" => Some(path("registries.conf").into()),
        "HOME" => Some(OsString::from(folder.path())),
        _ => None,
    };
    let options = Options {
        credentials: None,
        authfile: Some(path("auth.json")),
        cert_dir: None,
        verify: Verify::No,
        max_bytes: 1,
        patience: Patience {
            connect: Duration::from_millis(200),
            attempts: 1,
            ..Patience::default()
        },
    };
    let Ok(access) = Access::configured(options, variable) else {
        return;
    };
    for reference in access.candidates(&name).unwrap_or_default() {
        let text = reference.to_string();
        let again = text.parse::<Reference>().map(|again| again.to_string());
        assert_eq!(again.ok().as_ref(), Some(&text));
        assert!(access.find(&reference, "amd64").is_err(), "nobody is there");
    }
}

/// Files as podman's manual has them.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let conf = r#"unqualified-search-registries = ["127.0.0.1:1", "[::1]:1"]
[aliases]
"short" = "127.0.0.1:1/long"
[[registry]]
prefix = "*.example.com"
location = "127.0.0.1:1/x"
insecure = true
[[registry.mirror]]
location = "127.0.0.1:1"
pull-from-mirror = "digest-only"
[[registry]]
location = "e.org"
blocked = true
"#;
    let logins = r#"{"auths":{"127.0.0.1:1":{"auth":"dTpw"},"127.0.0.1:1/tool":{"identitytoken":"t"},"https://index.docker.io/v1/":{}}}"#;
    let with = |name: &str| format!("{conf}\0{logins}\0{name}").into_bytes();
    vec![
        with("tool:1"),
        with("short"),
        with("x.example.com/y"),
        with("e.org/z"),
    ]
}
