//! The manifest of an image that is made of another's app: the other's, by way of an OCI configuration, in which the changes are
//! made. Pure.

use anyhow::{Context, Result};
use contract::ImageManifest;
use contract::image::App;

use super::{Commit, Instruction};
use crate::digest::{Algorithm, Digest};
use crate::outgoing::{annotations, configuration, labels};
use crate::source::convert::{Described, convert};
use crate::source::document::Configuration;

/// The manifest of the image that `commit` makes, called `name`.
///
/// # Errors
/// If the base's is damaged.
pub fn manifest(commit: &Commit<'_>, name: Option<&str>) -> Result<ImageManifest> {
    let base = &commit.base.manifest;
    // Layers play no part in it.
    let no_layer = Digest::of(Algorithm::Sha256, b"");
    let document = configuration(commit.base, &no_layer, &labels(commit.base))?;
    let mut configuration: Configuration =
        serde_json::from_value(document).context("read the configuration of the base")?;
    Instruction::apply_all(commit.instructions, &mut configuration.config);
    commit.created.clone_into(&mut configuration.created);
    if let Some(author) = commit.author {
        author.clone_into(&mut configuration.author);
    }
    let mut manifest = convert(&Described {
        name,
        fallback: &base.name,
        architecture: &configuration.platform.architecture,
        annotations: &annotations(commit.base),
        configuration: &configuration,
    })?;
    manifest.app = manifest.app.take().map(|app| match &base.app {
        Some(of_base) => completed(app, of_base),
        None => app,
    });
    Ok(manifest)
}

/// `app` with what an OCI configuration has no words for.
fn completed(mut app: App, base: &App) -> App {
    for point in &mut app.mount_points {
        if let Some(known) = base
            .mount_points
            .iter()
            .find(|known| known.path == point.path)
        {
            *point = known.clone();
        }
    }
    for port in &mut app.ports {
        let place = (&port.protocol, port.port, port.count);
        let mut known = base.ports.iter();
        if let Some(known) = known.find(|known| (&known.protocol, known.port, known.count) == place)
        {
            *port = known.clone();
        }
    }
    App {
        supplementary_gids: base.supplementary_gids.clone(),
        event_handlers: base.event_handlers.clone(),
        isolators: base.isolators.clone(),
        user_annotations: base.user_annotations.clone(),
        ..app
    }
}
