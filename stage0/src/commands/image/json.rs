//! An image as the `--format=json` of the subcommands shows it.

use serde::Serialize;

use crate::times;

/// An image as JSON.
#[derive(Serialize)]
pub(in crate::commands) struct Json<'a> {
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
    /// Whose signatures it had when it was fetched; empty if it was not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_by: Option<&'a [String]>,
}

impl<'a> Json<'a> {
    pub(in crate::commands) fn of(image: &'a image::Image) -> Self {
        Self {
            id: &image.id,
            names: &image.names,
            kind: image.kind,
            size: image.rootfs_bytes,
            import_time: times::nanoseconds(image.imported),
            digest: image.digest.as_deref(),
            manifest: None,
            verified_by: None,
        }
    }

    /// All that the store knows.
    pub(super) fn whole(image: &'a image::Image, verified_by: &'a [String]) -> Self {
        Self {
            manifest: Some(&image.manifest),
            verified_by: Some(verified_by),
            ..Self::of(image)
        }
    }
}
