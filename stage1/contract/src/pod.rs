//! The appc Pod Manifest (specification section "Pod Manifest Schema"), as any stage 0 writes it to `pod`.

use serde::{Deserialize, Serialize};

use crate::annotation::{self, Annotation};
use crate::image::{App, Isolator, Label, Port};
use crate::nullable;

/// What runs in a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodManifest {
    /// Schema version; rkt writes its own version here, so it is not gated on.
    pub ac_version: String,
    /// Always `PodManifest`.
    pub ac_kind: PodKind,
    /// The apps, in order.
    #[serde(default, with = "nullable")]
    pub apps: Vec<PodApp>,
    /// Volumes by name.
    #[serde(default, with = "nullable")]
    pub volumes: Vec<Volume>,
    /// Limits of the pod as a whole.
    #[serde(default, with = "nullable")]
    pub isolators: Vec<Isolator>,
    /// Free metadata.
    #[serde(default, with = "nullable")]
    pub annotations: Vec<Annotation>,
    /// Ports of apps that are exposed on the host.
    #[serde(default, with = "nullable")]
    pub ports: Vec<ExposedPort>,
}

impl PodManifest {
    /// Whether apps may come and go while the pod runs.
    pub fn is_mutable(&self) -> bool {
        annotation::find(&self.annotations, annotation::POD_MUTABLE) == Some("true")
    }
}

/// The one value of `acKind` in a pod manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodKind {
    /// Spelled as the schema does.
    PodManifest,
}

/// One app of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodApp {
    /// ACName, unique in the pod.
    pub name: String,
    /// The image it runs from.
    pub image: PodImage,
    /// Overrides the image's app entirely; absent = the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<App>,
    /// Whether the root is read-only.
    #[serde(rename = "readOnlyRootFS", default)]
    pub read_only_root_fs: bool,
    /// Volumes placed in it.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Free metadata.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation>,
}

/// Which image an app runs from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodImage {
    /// `sha512-` and 128 hexadecimal digits.
    pub id: String,
    /// ACIdentifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image's labels.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
}

/// A volume placed at a path of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Name of the volume.
    pub volume: String,
    /// Absolute path in the app.
    pub path: String,
    /// Overrides the look-up by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_volume: Option<Volume>,
}

/// A volume of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// ACName, unique in the pod.
    pub name: String,
    /// `host` or `empty`.
    pub kind: String,
    /// Absolute host path of a `host` volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether apps only read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Whether mounts below the source come along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursive: Option<bool>,
    /// Octal mode of an `empty` volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Owner of an `empty` volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group of an `empty` volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A port of an app exposed on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExposedPort {
    /// Name of the app's port.
    pub name: String,
    /// Port on the host.
    pub host_port: u16,
    /// Address on the host; absent = all.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// The app's port itself, where no app of the manifest has it by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_port: Option<Port>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_with_null_and_missing_lists_reads_as_empty() {
        let text = r#"{"acVersion":"1.30.0+git","acKind":"PodManifest","apps":[{"name":"a",
            "image":{"id":"sha512-00"},"app":{"exec":["/x"],"user":"0","group":"0","environment":null}}],
            "volumes":null,"isolators":null,"ports":[]}"#;
        let pod: PodManifest = serde_json::from_str(text).expect("the manifest is valid");
        assert!(pod.volumes.is_empty() && pod.annotations.is_empty());
        assert!(!pod.apps[0].read_only_root_fs);
        assert!(
            pod.apps[0]
                .app
                .as_ref()
                .is_some_and(|app| app.environment.is_empty())
        );
    }

    #[test]
    fn manifest_of_an_image_is_refused() {
        let text = r#"{"acVersion":"0.8.11","acKind":"ImageManifest","apps":[]}"#;
        assert!(serde_json::from_str::<PodManifest>(text).is_err());
    }
}
