//! Who one is at a registry: what `podman login` and `docker login` left, or a helper program knows.
//!
//! Called once for each place that is asked. The files are those of containers-auth.json(5) and docker's config.json;
//! helpers speak the protocol of docker-credential-helpers. Secrets are never part of an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::bounded;
use serde::Deserialize;

use image::oci::{DOCKER_HOST, Reference};

/// Largest file or answer of a helper read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The server that docker's own files and helpers know docker.io by.
const DOCKER_SERVER: &str = "https://index.docker.io/v1/";

/// The user name by which a helper says that the secret is a token.
const TOKEN_USER: &str = "<token>";

/// A name and its secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password.
    Password(String, String),
    /// A token that a login server gives tokens for.
    Identity(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl std::str::FromStr for Credentials {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => {
                Ok(Self::Password(user.to_owned(), password.to_owned()))
            }
            _ => bail!("expected USER:PASSWORD"),
        }
    }
}

/// A file with logins.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Logins {
    auths: BTreeMap<String, Login>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct Login {
    auth: String,
    identitytoken: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// The credentials for `reference`: of `file`, or else of the first of the usual files that has some.
///
/// # Errors
/// If a file or a helper fails; that there are no credentials is no error.
pub fn find(
    reference: &Reference,
    file: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Credentials>> {
    let named = file.map(Path::to_path_buf);
    let named = named.or_else(|| variable("REGISTRY_AUTH_FILE").map(PathBuf::from));
    let paths = match &named {
        Some(path) => vec![path.clone()],
        None => usual_files(variable),
    };
    for path in paths {
        let found = read(&path, named.is_some())
            .and_then(|logins| logins.find(reference))
            .with_context(|| format!("read the logins of {}", path.display()))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn usual_files(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let uid = nix::unistd::getuid();
    let run = folder("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}").into());
    let home = folder("HOME");
    let below_home = |name: &str| Some(home.as_ref()?.join(name));
    let config = folder("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
    let docker = folder("DOCKER_CONFIG").or_else(|| below_home(".docker"));
    [
        Some(run.join("containers/auth.json")),
        Some(format!("/run/containers/{uid}/auth.json").into()),
        config.map(|folder| folder.join("containers/auth.json")),
        docker.map(|folder| folder.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn read(path: &Path, must_exist: bool) -> Result<Logins> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && !must_exist => {
            return Ok(Logins::default());
        }
        file => file?,
    };
    let bytes = bounded::read(file, MAX_BYTES)?;
    // The parser's own words could quote a secret.
    image::oci::parse(&bytes, "it")
}

impl Logins {
    fn find(&self, reference: &Reference) -> Result<Option<Credentials>> {
        if let Some(helper) = self.cred_helpers.get(reference.host()) {
            return ask(helper, server(reference.host()));
        }
        for key in keys(reference) {
            let known = |name: &&String| simplified(name) == key;
            let Some(name) = self.auths.keys().find(known) else {
                continue;
            };
            if let Some(found) = self.auths[name].credentials(name)? {
                return Ok(Some(found));
            }
        }
        match self.creds_store.as_str() {
            "" => Ok(None),
            helper => ask(helper, server(reference.host())),
        }
    }
}

impl Login {
    /// `None` if the entry only marks that a helper has the secret.
    fn credentials(&self, name: &str) -> Result<Option<Credentials>> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::Identity(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let decoded = STANDARD.decode(self.auth.trim()).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        text.as_deref()
            .and_then(|text| text.trim_end_matches('\0').parse().ok())
            .map(Some)
            .with_context(|| format!("the entry for {name:?} is not base64 of USER:PASSWORD"))
    }
}

/// The names under which a login may be: of the repository, of what is above it, of the host.
fn keys(reference: &Reference) -> Vec<String> {
    let name = reference.name();
    let above = name
        .match_indices('/')
        .rev()
        .map(|(at, _)| name[..at].to_owned());
    std::iter::once(name.clone()).chain(above).collect()
}

/// A key of `auths` without what older clients put around the host.
fn simplified(key: &str) -> String {
    let bare = key
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let bare = bare
        .strip_suffix("/v1")
        .or_else(|| bare.strip_suffix("/v2"))
        .unwrap_or(bare);
    match bare {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HOST.to_owned(),
        other => other.to_owned(),
    }
}

fn server(host: &str) -> &str {
    match host {
        DOCKER_HOST => DOCKER_SERVER,
        host => host,
    }
}

/// Asks `docker-credential-HELPER`.
fn ask(helper: &str, server: &str) -> Result<Option<Credentials>> {
    ensure!(
        !helper.is_empty() && !helper.contains('/'),
        "{helper:?} is no name of a credential helper"
    );
    let program = format!("docker-credential-{helper}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start credential helper {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why on stdout.
        let _ = stdin.write_all(server.as_bytes());
    }
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(MAX_BYTES)
            .read_to_end(&mut bytes)
            .with_context(|| format!("read what {program} says"))?;
    }
    let status = child
        .wait()
        .with_context(|| format!("wait for {program}"))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&bytes);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        bail!(
            "{program} failed for {server}: {}",
            said.trim().escape_debug()
        );
    }
    let answer: HelperAnswer = image::oci::parse(&bytes, &format!("the answer of {program}"))?;
    Ok(match answer.username.as_str() {
        "" => None,
        TOKEN_USER => Some(Credentials::Identity(answer.secret)),
        _ => Some(Credentials::Password(answer.username, answer.secret)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(text: &str, name: &str) -> Result<Option<Credentials>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        fs::write(&path, text).unwrap();
        find(&name.parse().unwrap(), Some(&path), |_| None)
    }

    fn password(user: &str) -> Option<Credentials> {
        Some(Credentials::Password(user.to_owned(), "p:w".to_owned()))
    }

    #[test]
    fn login_nearest_to_the_repository_counts() {
        let auth = |user: &str| STANDARD.encode(format!("{user}:p:w"));
        let text = format!(
            r#"{{"auths":{{"quay.io":{{"auth":"{}"}},"quay.io/a":{{"auth":"{}"}},"quay.io/a/b":{{}},
                "https://index.docker.io/v1/":{{"auth":"{}"}},"https://old.org/v1/":{{"identitytoken":"t"}}}}}}"#,
            auth("host"),
            auth("space"),
            auth("docker"),
        );
        for (name, found) in [
            ("quay.io/x", password("host")),
            ("quay.io/a/x", password("space")),
            ("quay.io/a/b", password("space")),
            ("quay.io/ab", password("host")),
            ("alpine", password("docker")),
            ("old.org/x", Some(Credentials::Identity("t".to_owned()))),
            ("other.org/x", None),
        ] {
            assert_eq!(find_in(&text, name).unwrap(), found, "{name}");
        }
    }

    #[test]
    fn malformed_login_is_an_error_without_the_secret() {
        for text in [
            r#"{"auths":{"quay.io":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":{"quay.io":{"auth":"%secret%"}}}"#,
            r#"{"auths":{"quay.io":"secret"}}"#,
            r#"{"credHelpers":{"quay.io":"../secret"}}"#,
        ] {
            let error = format!("{:#}", find_in(text, "quay.io/x").unwrap_err());
            let told = error.replace("../secret", "");
            assert!(
                !told.contains("secret") && !told.contains("c2Vj"),
                "{error}"
            );
        }
    }

    #[test]
    fn file_that_was_named_must_exist() {
        let named = Some(Path::new("/nowhere/auth.json"));
        assert!(find(&"quay.io/x".parse().unwrap(), named, |_| None).is_err());
        assert_eq!(
            find(&"quay.io/x".parse().unwrap(), None, |name| {
                matches!(name, "HOME" | "XDG_RUNTIME_DIR").then(|| "/nowhere".into())
            })
            .unwrap(),
            None
        );
    }
}
