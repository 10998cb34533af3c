//! What an app executes: the image's words, the command line's, or both.

use anyhow::{Context, Result, bail};
use contract::{ImageManifest, annotation};
use image::Kind;

use crate::cli::AppFlags;

/// Image annotation: an OCI image's Entrypoint, a JSON list.
const OCI_ENTRYPOINT: &str = "appc.io/docker/entrypoint";
/// Image annotation: an OCI image's Cmd, a JSON list.
const OCI_CMD: &str = "appc.io/docker/cmd";

/// The words to execute, never empty.
///
/// Arguments replace the Cmd of an OCI image and follow its Entrypoint; they are appended to the `exec` of an ACI, and
/// replace the shell of a bare root file system.
///
/// # Errors
/// If nothing says what to execute.
pub fn exec(
    image: &ImageManifest,
    kind: Kind,
    flags: &AppFlags,
    arguments: &[String],
) -> Result<Vec<String>> {
    let entrypoint = oci_words(image, OCI_ENTRYPOINT)?;
    let cmd = oci_words(image, OCI_CMD)?;
    let mut words = if let Some(program) = &flags.exec {
        vec![program.clone()]
    } else if let Some(text) = &flags.entrypoint {
        entrypoint_words(text)?
    } else if entrypoint.is_some() || cmd.is_some() {
        let mut words = entrypoint.unwrap_or_default();
        if arguments.is_empty() {
            words.extend(cmd.unwrap_or_default());
        }
        words
    } else if kind == Kind::RootFs && !arguments.is_empty() {
        Vec::new()
    } else {
        image
            .app
            .as_ref()
            .map_or_else(Vec::new, |app| app.exec.clone())
    };
    words.extend_from_slice(arguments);
    if words.first().is_none_or(String::is_empty) {
        bail!(
            "image {} does not say what to execute; name it: fairing run IMAGE -- CMD",
            image.name
        );
    }
    if words.iter().any(|word| word.contains('\0')) {
        bail!("an argument of image {} holds a zero byte", image.name);
    }
    Ok(words)
}

fn oci_words(image: &ImageManifest, name: &str) -> Result<Option<Vec<String>>> {
    let Some(text) = annotation::find(&image.annotations, name) else {
        return Ok(None);
    };
    serde_json::from_str(text)
        .with_context(|| format!("read annotation {name} of image {}", image.name))
}

/// `--entrypoint`: one word, or a JSON list of words; empty text for none.
fn entrypoint_words(text: &str) -> Result<Vec<String>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).context("read --entrypoint as a JSON list of words");
    }
    Ok(vec![text.to_owned()])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use contract::annotation::Annotation;
    use contract::image::{App, ImageKind};

    pub fn image(words: &[&str], annotations: &[(&str, &str)]) -> ImageManifest {
        ImageManifest {
            ac_version: "0.8.11".into(),
            ac_kind: ImageKind::ImageManifest,
            name: "example.com/tool".into(),
            labels: Vec::new(),
            app: Some(App {
                exec: words.iter().map(ToString::to_string).collect(),
                user: "0".into(),
                group: "0".into(),
                ..App::default()
            }),
            dependencies: Vec::new(),
            path_whitelist: Vec::new(),
            annotations: annotations
                .iter()
                .map(|(name, value)| Annotation::new(name, *value))
                .collect(),
        }
    }

    fn folded(image: &ImageManifest, kind: Kind, flags: &AppFlags, arguments: &[&str]) -> String {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        exec(image, kind, flags, &arguments)
            .map_or_else(|_| "error".into(), |words| words.join(" "))
    }

    #[test]
    fn arguments_of_each_kind_of_image_are_folded() {
        let aci = image(&["/a", "b"], &[]);
        let oci = image(
            &["/e", "c"],
            &[(OCI_ENTRYPOINT, r#"["/e"]"#), (OCI_CMD, r#"["c"]"#)],
        );
        let cmd_only = image(&["c"], &[(OCI_CMD, r#"["c"]"#)]);
        let bare = image(&["/bin/sh"], &[]);
        let empty = image(&[], &[]);
        let none = AppFlags::default();
        let exec = AppFlags {
            exec: Some("/x".into()),
            ..AppFlags::default()
        };
        let entrypoint = AppFlags {
            entrypoint: Some(r#"["/n", "m"]"#.into()),
            ..AppFlags::default()
        };
        for (image, kind, flags, arguments, expected) in [
            (&aci, Kind::Aci, &none, &["z"][..], "/a b z"),
            (&aci, Kind::Aci, &exec, &["z"], "/x z"),
            (&aci, Kind::Aci, &entrypoint, &[], "/n m"),
            (&oci, Kind::Oci, &none, &[], "/e c"),
            (&oci, Kind::Oci, &none, &["z"], "/e z"),
            (&oci, Kind::Oci, &exec, &[], "/x"),
            (&oci, Kind::Oci, &entrypoint, &["z"], "/n m z"),
            (&oci, Kind::Oci, &entrypoint, &[], "/n m"),
            (&cmd_only, Kind::Oci, &none, &["z", "y"], "z y"),
            (&bare, Kind::RootFs, &none, &["z"], "z"),
            (&bare, Kind::RootFs, &none, &[], "/bin/sh"),
            (&empty, Kind::Aci, &none, &[], "error"),
            (&empty, Kind::Oci, &none, &[""], "error"),
        ] {
            assert_eq!(folded(image, kind, flags, arguments), expected);
        }
    }
}
