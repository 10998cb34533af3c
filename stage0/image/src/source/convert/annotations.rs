//! What appc has no field for, kept as annotations of the image: docker2aci's where it has one, ours in the same manner
//! where it drops something that matters at run time, or to who builds on the image.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use contract::annotation::{HEALTH_CHECK, STOP_SIGNAL};

use crate::source::document::Configuration;
use crate::source::names::split_registry;

/// How all that is docker's begins. What an image calls so itself is left out: it must not pass for the real ones.
pub const PREFIX: &str = "appc.io/docker/";

/// The registry that the name names.
pub const REGISTRY: &str = "appc.io/docker/registryurl";
/// The name between registry and tag; says that volumes are filled as docker does.
pub const REPOSITORY: &str = "appc.io/docker/repository";
/// The tag of the name.
pub const TAG: &str = "appc.io/docker/tag";
/// The Entrypoint, a JSON list.
pub const ENTRYPOINT: &str = "appc.io/docker/entrypoint";
/// The Cmd, a JSON list.
pub const CMD: &str = "appc.io/docker/cmd";
/// The words before the command of a RUN, a JSON list; for who builds on the image.
pub const SHELL: &str = "appc.io/docker/shell";
/// What is done when another image is built on this one, a JSON list; for who does.
pub const ON_BUILD: &str = "appc.io/docker/onbuild";
/// What its builder says about the image.
pub const COMMENT: &str = "docker-comment";
/// When it was built.
pub const CREATED: &str = "created";
/// Who built it.
pub const AUTHORS: &str = "authors";

/// Those that say what an image is called, not what it is.
pub const OF_NAME: [&str; 3] = [REGISTRY, REPOSITORY, TAG];

/// Those for an image with this configuration that is called `repository`, perhaps with a tag.
///
/// # Errors
/// If words cannot be written as JSON.
pub fn annotations(
    repository: &str,
    tag: Option<&str>,
    configuration: &Configuration,
) -> Result<BTreeMap<String, String>> {
    let execution = &configuration.config;
    let (registry, repository) = split_registry(repository);
    let mut annotations = BTreeMap::new();
    for (name, value) in [
        (REGISTRY, registry.unwrap_or_default()),
        (REPOSITORY, repository),
        (TAG, tag.unwrap_or_default()),
        (CREATED, &configuration.created),
        (AUTHORS, &configuration.author),
        (COMMENT, &configuration.comment),
        (STOP_SIGNAL, &execution.stop_signal),
    ] {
        if !value.is_empty() {
            annotations.insert(name.to_owned(), value.to_owned());
        }
    }
    for (name, words) in [
        (ENTRYPOINT, &execution.entrypoint),
        (CMD, &execution.cmd),
        (SHELL, &execution.shell),
        (ON_BUILD, &execution.on_build),
    ] {
        if let Some(words) = words.as_ref().filter(|words| !words.is_empty()) {
            let text = serde_json::to_string(words).context("write words as JSON")?;
            annotations.insert(name.to_owned(), text);
        }
    }
    let check = execution.healthcheck.as_ref();
    if let Some(check) = check.filter(|check| check.is_object()) {
        annotations.insert(HEALTH_CHECK.to_owned(), check.to_string());
    }
    Ok(annotations)
}
