//! A policy as it is written: containers-policy.json(5), of which nothing is passed over that is not understood.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::place::{OF_PATHS, WITHOUT_SCOPES};
use super::requirement::{KeySource, Keys, Requirement};
use super::{Scopes, identity, strict};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Written>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Written>>>,
}

/// A requirement. The empty ones have braces so that other fields in them are refused, too.
#[derive(Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
enum Written {
    InsecureAcceptAnything {},
    Reject {},
    SignedBy {
        key_type: String,
        key_path: Option<PathBuf>,
        key_paths: Option<Vec<PathBuf>>,
        key_data: Option<String>,
        signed_identity: Option<identity::Written>,
    },
    SigstoreSigned {
        key_path: Option<PathBuf>,
        key_paths: Option<Vec<PathBuf>>,
        key_data: Option<String>,
        key_datas: Option<Vec<String>>,
        fulcio: Option<IgnoredAny>,
        pki: Option<IgnoredAny>,
        rekor_public_key_path: Option<IgnoredAny>,
        rekor_public_key_paths: Option<IgnoredAny>,
        rekor_public_key_data: Option<IgnoredAny>,
        rekor_public_key_datas: Option<IgnoredAny>,
        signed_identity: Option<identity::Written>,
    },
}

/// The requirements of all places, and those of each transport's scopes.
///
/// # Errors
/// If anything in it is not understood.
pub fn parse(bytes: &[u8]) -> Result<(Vec<Requirement>, BTreeMap<String, Scopes>)> {
    let File {
        default,
        transports,
    } = strict::parse(bytes)?;
    let default = checked(default).context("read \"default\"")?;
    let transports = transports.into_iter().map(|(transport, scopes)| {
        let scopes = scopes.into_iter().map(|(scope, written)| {
            let read = || {
                check_scope(&transport, &scope)?;
                checked(written)
            };
            let requirements =
                read().with_context(|| format!("read scope {scope:?} of {transport:?}"))?;
            Ok((scope, requirements))
        });
        let scopes = scopes.collect::<Result<Scopes>>()?;
        Ok((transport, scopes))
    });
    Ok((default, transports.collect::<Result<_>>()?))
}

/// A scope that can never fit would protect nobody.
fn check_scope(transport: &str, scope: &str) -> Result<()> {
    if scope.is_empty() {
        return Ok(());
    }
    if WITHOUT_SCOPES.contains(&transport) {
        bail!("{transport:?} has no scopes but \"\"");
    }
    if OF_PATHS.contains(&transport) {
        let odd = |part: &str| matches!(part, "" | "." | "..");
        let sound = scope
            .strip_prefix('/')
            .is_some_and(|path| !path.split('/').any(odd));
        ensure!(sound, "it is no absolute path without detours");
    }
    Ok(())
}

fn checked(written: Vec<Written>) -> Result<Vec<Requirement>> {
    ensure!(!written.is_empty(), "there is no requirement in it");
    written.into_iter().map(Written::checked).collect()
}

impl Written {
    fn checked(self) -> Result<Requirement> {
        match self {
            Self::InsecureAcceptAnything {} => Ok(Requirement::AcceptAnything),
            Self::Reject {} => Ok(Requirement::Reject),
            Self::SignedBy {
                key_type,
                key_path,
                key_paths,
                key_data,
                signed_identity,
            } => {
                ensure!(
                    key_type == "GPGKeys",
                    "keyType {key_type:?} is not supported; GPGKeys is"
                );
                let data = key_data.map(|data| vec![data]);
                let sources = sources([key_path.map(|path| vec![path]), key_paths], [data, None])?;
                Ok(Requirement::SignedBy(keys(sources, signed_identity)?))
            }
            Self::SigstoreSigned {
                key_path,
                key_paths,
                key_data,
                key_datas,
                fulcio,
                pki,
                rekor_public_key_path,
                rekor_public_key_paths,
                rekor_public_key_data,
                rekor_public_key_datas,
                signed_identity,
            } => {
                let other = [
                    ("fulcio", fulcio),
                    ("pki", pki),
                    ("rekorPublicKeyPath", rekor_public_key_path),
                    ("rekorPublicKeyPaths", rekor_public_key_paths),
                    ("rekorPublicKeyData", rekor_public_key_data),
                    ("rekorPublicKeyDatas", rekor_public_key_datas),
                ];
                if let Some((field, _)) = other.iter().find(|(_, value)| value.is_some()) {
                    return Ok(Requirement::Unsupported(format!(
                        "sigstoreSigned by {field}"
                    )));
                }
                let paths = [key_path.map(|path| vec![path]), key_paths];
                let sources = sources(paths, [key_data.map(|data| vec![data]), key_datas])?;
                Ok(Requirement::SigstoreSigned(keys(sources, signed_identity)?))
            }
        }
    }
}

fn keys(sources: Vec<KeySource>, identity: Option<identity::Written>) -> Result<Keys> {
    let identity = identity.unwrap_or(identity::Written::MatchRepoDigestOrExact {});
    Ok(Keys {
        sources,
        identity: identity.checked().context("read \"signedIdentity\"")?,
    })
}

/// The keys of the one field that has some.
fn sources(
    paths: [Option<Vec<PathBuf>>; 2],
    data: [Option<Vec<String>>; 2],
) -> Result<Vec<KeySource>> {
    let paths = paths.into_iter().flatten();
    let paths = paths.map(|paths| Ok(paths.into_iter().map(KeySource::Path).collect()));
    let data = data.into_iter().flatten().map(|data| {
        let decoded = data.iter().map(|data| STANDARD.decode(data));
        let decoded = decoded.map(|bytes| bytes.map(KeySource::Data));
        decoded.collect::<Result<Vec<_>, _>>()
    });
    let mut fields: Vec<_> = paths.chain(data).collect();
    let field = fields.pop().filter(|_| fields.is_empty());
    let sources = field
        .context("exactly one of the fields for keys must be there: keyPath, keyPaths or keyData")?
        .context("the key is not base64")?;
    let empty = |source: &KeySource| match source {
        KeySource::Path(path) => path.as_os_str().is_empty(),
        KeySource::Data(bytes) => bytes.is_empty(),
    };
    ensure!(
        !sources.is_empty() && !sources.iter().any(empty),
        "it names no key"
    );
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(_) => panic!("not refused: {text}"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn requirement_with_a_field_that_is_missing_unknown_or_wrong_is_refused() {
        let signed = |more: &str| format!(r#"{{"type":"signedBy","keyType":"GPGKeys"{more}}}"#);
        for (requirement, reason) in [
            ("", "no requirement"),
            ("{}", "type"),
            ("1", "valid"),
            (r#"{"type":"signedBaseLayer"}"#, "signedBaseLayer"),
            (r#"{"type":"reject","x":1}"#, "x"),
            (r#"{"type":"reject","type":"reject"}"#, "twice"),
            (
                r#"{"type":"insecureAcceptAnything","keyPath":"/k"}"#,
                "keyPath",
            ),
            (r#"{"type":"signedBy","keyPath":"/k"}"#, "keyType"),
            (
                r#"{"type":"signedBy","keyType":"X509Certificates","keyPath":"/k"}"#,
                "X509Certificates",
            ),
            (&signed(""), "exactly one"),
            (
                &signed(r#","keyPath":"/k","keyData":"aaaa""#),
                "exactly one",
            ),
            (&signed(r#","keyPath":"""#), "names no key"),
            (&signed(r#","keyPaths":[]"#), "names no key"),
            (&signed(r#","keyData":"%""#), "base64"),
            (&signed(r#","keyPath":1"#), "valid"),
            (
                &signed(r#","keyPath":"/k","signedIdentity":{"type":"no"}"#),
                "no",
            ),
            (&signed(r#","keyPath":"/k","x":1"#), "x"),
            (r#"{"type":"sigstoreSigned"}"#, "exactly one"),
            (
                r#"{"type":"sigstoreSigned","keyPath":"/k","keyType":"GPGKeys"}"#,
                "keyType",
            ),
        ] {
            let error = refused(&format!(r#"{{"default":[{requirement}]}}"#));
            assert!(error.contains(reason), "{requirement}: {error}");
        }
    }

    #[test]
    fn policy_that_is_not_exactly_one_is_refused() {
        let accept = r#"[{"type":"insecureAcceptAnything"}]"#;
        for text in [
            "",
            "[]",
            "{}",
            r#"{"default":{}}"#,
            &format!(r#"{{"default":{accept},"more":1}}"#),
            &format!(r#"{{"default":{accept},"default":{accept}}}"#),
            &format!(r#"{{"default":{accept},"transports":[]}}"#),
            &format!(r#"{{"default":{accept},"transports":{{"docker":{accept}}}}}"#),
            &format!(r#"{{"default":{accept},"transports":{{"docker":{{"x":[]}}}}}}"#),
            &format!(
                r#"{{"default":{accept},"transports":{{"docker":{{"x":{accept},"x":{accept}}}}}}}"#
            ),
            &format!(r#"{{"default":{accept},"transports":{{"oci":{{"relative":{accept}}}}}}}"#),
            &format!(r#"{{"default":{accept},"transports":{{"oci":{{"/":{accept}}}}}}}"#),
            &format!(r#"{{"default":{accept},"transports":{{"oci":{{"/a/../b":{accept}}}}}}}"#),
            &format!(
                r#"{{"default":{accept},"transports":{{"docker-archive":{{"/a":{accept}}}}}}}"#
            ),
        ] {
            refused(text);
        }
        let other = format!(r#"{{"default":{accept},"transports":{{"else":{{"x":{accept}}}}}}}"#);
        assert!(parse(other.as_bytes()).is_ok());
    }
}
