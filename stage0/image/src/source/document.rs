//! The JSON documents of OCI images and of `docker save`, with the fields that matter here.
//!
//! Parsed from bytes that are bounded in size; serde_json bounds the nesting. Absent and `null` are the same, as the
//! builders of the world write both. OCI image-spec 1.1: "Image Index", "Image Manifest", "Image Configuration".

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// Largest JSON document taken, in bytes; registries allow 4 MiB for a manifest.
pub const MAX_JSON_BYTES: u64 = 4 << 20;

/// An entry of an index, or a part of a manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Kind of what it points to.
    #[serde(default, deserialize_with = "or_null")]
    pub media_type: String,
    /// Of its content.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// What it is for, where the index says.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// What its author says besides.
    #[serde(default, deserialize_with = "or_null")]
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest was built for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Platform {
    /// As Go spells it.
    #[serde(default, deserialize_with = "or_null")]
    pub os: String,
    /// As Go spells it.
    #[serde(default, deserialize_with = "or_null")]
    pub architecture: String,
}

/// An index of manifests and further indexes.
#[derive(Debug, Deserialize)]
pub struct Index {
    /// Most wanted first.
    #[serde(default, deserialize_with = "or_null")]
    pub manifests: Vec<Descriptor>,
}

/// One image: its configuration and its layers, lowest first.
#[derive(Debug, Deserialize)]
pub struct Manifest {
    /// Points to how it is run.
    pub config: Descriptor,
    /// Lowest first.
    #[serde(default, deserialize_with = "or_null")]
    pub layers: Vec<Descriptor>,
    /// What its author says besides.
    #[serde(default, deserialize_with = "or_null")]
    pub annotations: BTreeMap<String, String>,
}

/// The configuration of an image.
#[derive(Debug, Deserialize)]
pub struct Configuration {
    #[serde(default, deserialize_with = "or_null")]
    pub created: String,
    #[serde(default, deserialize_with = "or_null")]
    pub author: String,
    #[serde(default, deserialize_with = "or_null")]
    pub comment: String,
    #[serde(flatten)]
    pub platform: Platform,
    #[serde(default, deserialize_with = "or_null")]
    pub config: Execution,
    pub rootfs: RootFs,
    #[serde(default, deserialize_with = "or_null")]
    pub history: Vec<History>,
}

/// A step in which an image was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct History {
    /// When: RFC 3339.
    #[serde(
        default,
        deserialize_with = "or_null",
        skip_serializing_if = "String::is_empty"
    )]
    pub created: String,
    /// By which command.
    #[serde(
        default,
        deserialize_with = "or_null",
        skip_serializing_if = "String::is_empty"
    )]
    pub created_by: String,
    /// By whom.
    #[serde(
        default,
        deserialize_with = "or_null",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// What its maker says of it.
    #[serde(
        default,
        deserialize_with = "or_null",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// Whether it has made no layer.
    #[serde(
        default,
        deserialize_with = "or_null",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub empty_layer: bool,
}

/// How a container of the image is run.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    #[serde(default, deserialize_with = "or_null")]
    pub user: String,
    #[serde(default, deserialize_with = "or_null")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(default, deserialize_with = "or_null")]
    pub env: Vec<String>,
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub cmd: Option<Vec<String>>,
    #[serde(default, deserialize_with = "or_null")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    #[serde(default, deserialize_with = "or_null")]
    pub working_dir: String,
    #[serde(default, deserialize_with = "or_null")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_null")]
    pub stop_signal: String,
    /// Of builds with docker.
    #[serde(default)]
    pub shell: Option<Vec<String>>,
    /// As `shell`.
    #[serde(default)]
    pub on_build: Option<Vec<String>>,
    /// An extension of docker's, kept as it is.
    #[serde(default)]
    pub healthcheck: Option<serde_json::Value>,
}

/// The digests of the uncompressed layers, lowest first.
#[derive(Debug, Default, Deserialize)]
pub struct RootFs {
    /// Each a digest.
    #[serde(default, deserialize_with = "or_null")]
    pub diff_ids: Vec<String>,
}

/// One image of a `docker save` archive, in its `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SavedImage {
    pub config: String,
    #[serde(default, deserialize_with = "or_null")]
    pub repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub layers: Vec<String>,
}

/// Parses `bytes`; the error names `object` and a place in it, never its content.
///
/// # Errors
/// If `bytes` are not such a document.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], object: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "ends too early",
            serde_json::error::Category::Data => "is not the document expected",
            _ => "is not valid JSON",
        };
        anyhow!(
            "{object} {what} (line {}, column {})",
            error.line(),
            error.column()
        )
    })
}

fn or_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_with_nulls_is_read() {
        let text = br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"Volumes":null,
            "ExposedPorts":{"80/tcp":{}}},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let configuration: Configuration = parse(text, "config").unwrap();
        assert_eq!(configuration.config.cmd.unwrap(), ["sh"]);
        assert_eq!(configuration.platform.architecture, "amd64");
        assert!(configuration.config.env.is_empty());
    }

    #[test]
    fn deep_nesting_is_an_error_without_content() {
        let text = format!("{}secret", "[".repeat(100_000));
        let error = parse::<Index>(text.as_bytes(), "index.json")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("index.json is not") && !error.contains("secret"),
            "{error}"
        );
    }
}
