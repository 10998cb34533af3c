//! The appc Image Manifest (specification section "Image Manifest Schema") and the `app` that describes a program.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::annotation::Annotation;
use crate::nullable;

/// Version of the appc schema written into manifests of our own making.
pub const AC_VERSION: &str = "0.8.11";

/// The description of one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// Schema version; not gated on.
    pub ac_version: String,
    /// Always `ImageManifest`.
    pub ac_kind: ImageKind,
    /// ACIdentifier of the image.
    pub name: String,
    /// `version`, `os`, `arch` and others.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// What to run; absent in an image that is only a dependency, or a stage 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<App>,
    /// Images whose files lie below this one's.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// If not empty, all other files are left out.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub path_whitelist: Vec<String>,
    /// Free metadata; for a stage 1 image, its entrypoints.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation>,
}

/// An image whose files lie below another's (specification section "Dependency Matching").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// ACIdentifier of the image.
    pub image_name: String,
    /// The one image that is meant, whatever its name and labels.
    #[serde(rename = "imageID")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// Labels that the image has; it may have others besides.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// Size of the image in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

impl fmt::Display for Dependency {
    /// As discovery spells it: `NAME,LABEL=VALUE`, with the id where one is given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.image_name)?;
        for Label { name, value } in &self.labels {
            write!(f, ",{name}={value}")?;
        }
        match &self.image_id {
            Some(id) => write!(f, " ({id})"),
            None => Ok(()),
        }
    }
}

/// The one value of `acKind` in an image manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageKind {
    /// Spelled as the schema does.
    ImageManifest,
}

/// One label of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// ACIdentifier.
    pub name: String,
    /// Any text.
    pub value: String,
}

/// A program and the surroundings it expects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// Command and arguments; may be empty in an image, not in a pod that runs it.
    #[serde(default, with = "nullable")]
    pub exec: Vec<String>,
    /// Name, number, or path whose owner it is.
    pub user: String,
    /// Name, number, or path whose group it is.
    pub group: String,
    /// Supplementary group ids.
    #[serde(rename = "supplementaryGIDs")]
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub supplementary_gids: Vec<u32>,
    /// Programs to run before and after.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub event_handlers: Vec<EventHandler>,
    /// Absolute; `/` when absent.
    #[serde(default, with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_directory: String,
    /// Ordered; a name may recur, the last counts.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<Variable>,
    /// Where the app expects volumes.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<MountPoint>,
    /// Ports the app listens on.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Limits; of each name the last counts.
    #[serde(default, with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub isolators: Vec<Isolator>,
    /// Without effect here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_annotations: Option<serde_json::Map<String, serde_json::Value>>,
    /// Without effect here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_labels: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A program run at a point of an app's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHandler {
    /// `pre-start` or `post-stop`.
    pub name: String,
    /// Command and arguments.
    pub exec: Vec<String>,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Without `=`.
    pub name: String,
    /// Any text.
    pub value: String,
}

/// A place in the app where a volume belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountPoint {
    /// ACName.
    pub name: String,
    /// Absolute path in the image.
    pub path: String,
    /// Whether the app only reads it.
    #[serde(default)]
    pub read_only: bool,
}

/// A port on which the app listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// ACName.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// First port.
    pub port: u16,
    /// How many ports from `port` on.
    #[serde(default = "one")]
    pub count: u16,
    /// Whether the listening socket is handed over.
    #[serde(default)]
    pub socket_activated: bool,
}

fn one() -> u16 {
    1
}

/// A named limit or permission; `value` has the shape its name defines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Isolator {
    /// ACIdentifier, as `resource/memory`.
    pub name: String,
    /// By name.
    pub value: serde_json::Value,
}

/// The values of all isolators called `name`, in order.
pub fn isolators_called<'a>(
    isolators: &'a [Isolator],
    name: &'a str,
) -> impl DoubleEndedIterator<Item = &'a serde_json::Value> {
    let called = isolators
        .iter()
        .filter(move |isolator| isolator.name == name);
    called.map(|isolator| &isolator.value)
}
