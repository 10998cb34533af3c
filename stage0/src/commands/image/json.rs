//! An image as the `--format=json` of the subcommands shows it.

use serde::Serialize;

use crate::times;

/// An image as JSON.
#[derive(Serialize)]
pub(super) struct Json<'a> {
    id: &'a str,
    names: &'a [String],
    kind: image::Kind,
    size: u64,
    /// Nanoseconds since 1970.
    import_time: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<&'a contract::ImageManifest>,
}

impl<'a> Json<'a> {
    pub(super) fn of(image: &'a image::Image) -> Self {
        Self {
            id: &image.id,
            names: &image.names,
            kind: image.kind,
            size: image.rootfs_bytes,
            import_time: times::nanoseconds(image.imported),
            digest: image.digest.as_deref(),
            manifest: None,
        }
    }

    pub(super) fn with_manifest(image: &'a image::Image) -> Self {
        Self {
            manifest: Some(&image.manifest),
            ..Self::of(image)
        }
    }
}
