//! The pod manifest: apps from images and flags, and what the pod as a whole is given.

use std::collections::HashSet;
use std::io::IsTerminal;

use anyhow::{Context, Result, bail};
use contract::annotation::{self, Annotation};
use contract::image::{AC_VERSION, App};
use contract::name::{is_ac_name, sanitize_ac_name};
use contract::pod::{PodApp, PodImage, PodKind, Volume};
use contract::{ImageManifest, PodManifest, UidRange};
use image::Image;
use serde_json::{Map, Value};

use super::{Layers, environment, exec, isolators, ports, volumes};
use crate::cli::{AppFlags, AppWords, PodFlags, SandboxFlags, StdinMode};

/// The command line of a pod.
#[derive(Debug)]
pub struct PodRequest<'a> {
    /// Flags of the pod.
    pub flags: &'a PodFlags,
    /// `--interactive` of rkt.
    pub interactive: bool,
    /// Whether the caller's stdin and stdout are terminals.
    pub on_terminal: bool,
    /// The configured uids of pods.
    pub uids: Option<UidRange>,
    /// The apps, in order.
    pub apps: &'a [AppWords],
    /// What a pod that begins without apps, and takes some later, is given instead.
    pub sandbox: Option<&'a SandboxFlags>,
}

impl<'a> PodRequest<'a> {
    /// A pod of `apps`, for a caller on these terminals.
    pub fn new(flags: &'a PodFlags, apps: &'a [AppWords], uids: Option<UidRange>) -> Self {
        Self {
            flags,
            interactive: false,
            on_terminal: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
            uids,
            apps,
            sandbox: None,
        }
    }
}

/// The app that a running pod is given: stdin or a terminal, if it has one, are for those who attach to it.
///
/// # Errors
/// As [`pod_manifest`].
pub fn added_app(words: &AppWords, image: &Image) -> Result<PodApp> {
    let stdio = Stdio {
        interactive: false,
        on_terminal: false,
    };
    pod_app(stdio, words, image, &Layers::default())
}

/// What an app's streams depend on beside its flags.
#[derive(Clone, Copy)]
struct Stdio {
    interactive: bool,
    on_terminal: bool,
}

/// Builds the manifest; `images` are those of the apps, in the same order.
///
/// # Errors
/// For flags that contradict each other or the images.
pub fn pod_manifest(request: &PodRequest, images: &[Image]) -> Result<PodManifest> {
    if request.interactive && images.len() > 1 {
        bail!("--interactive is for a pod of one app");
    }
    let layers = layers(request.flags)?;
    let mut names = HashSet::new();
    let mut apps = Vec::new();
    for (words, image) in request.apps.iter().zip(images) {
        let stdio = Stdio {
            interactive: request.interactive,
            on_terminal: request.on_terminal,
        };
        let app = pod_app(stdio, words, image, &layers)
            .with_context(|| format!("prepare image {}", words.image.to_string_lossy()))?;
        if !names.insert(app.name.clone()) {
            bail!(
                "two apps are called {}; --name gives one another name",
                app.name
            );
        }
        apps.push(app);
    }
    let (volumes, caches) = named_volumes(&request.flags.volume)?;
    let mut annotations = pod_annotations(request);
    annotations.extend(caches);
    Ok(PodManifest {
        ac_version: AC_VERSION.to_owned(),
        ac_kind: PodKind::PodManifest,
        apps,
        volumes,
        isolators: isolators::of_pod(request.flags, request.sandbox),
        annotations,
        ports: [
            ports::exposed(&request.flags.port, request.sandbox.is_some())?,
            ports::published(&request.flags.publish)?,
        ]
        .concat(),
    })
}

/// The pod's volumes, and the annotations that say their cache policies.
fn named_volumes(texts: &[String]) -> Result<(Vec<Volume>, Vec<Annotation>)> {
    let mut names = HashSet::new();
    let (mut list, mut caches) = (Vec::new(), Vec::new());
    for text in texts {
        let (volume, cache) = volumes::volume(text)?;
        if !names.insert(volume.name.clone()) {
            bail!("two volumes are called {}", volume.name);
        }
        list.push(volume);
        caches.extend(cache);
    }
    Ok((list, caches))
}

fn layers(flags: &PodFlags) -> Result<Layers> {
    let mut layers = Layers {
        set: flags.set_env.clone(),
        ..Layers::default()
    };
    if flags.inherit_env {
        layers.inherited = environment::inherited();
    }
    for path in &flags.set_env_file {
        layers.files.extend(environment::read_file(path)?);
    }
    Ok(layers)
}

fn pod_annotations(request: &PodRequest) -> Vec<Annotation> {
    let PodRequest { flags, uids, .. } = request;
    let mutable = request.sandbox.is_some().to_string();
    let mut annotations = vec![Annotation::new(annotation::POD_MUTABLE, mutable)];
    let optional = [
        (annotation::POD_SCRATCH_SIZE, flags.scratch_size.clone()),
        (
            annotation::POD_TMPFS_ROOT,
            flags.tmpfs_root.then(|| "true".to_owned()),
        ),
        (
            annotation::POD_TIMEOUT,
            flags
                .timeout
                .map(|timeout| timeout.as_secs_f64().to_string()),
        ),
        (
            annotation::POD_STOP_TIMEOUT,
            Some(flags.stop_timeout.as_secs_f64().to_string()),
        ),
        (
            annotation::POD_TIMINGS,
            flags.timings.then(|| "true".to_owned()),
        ),
        (annotation::POD_UIDS, uids.map(|range| range.to_string())),
    ];
    for (name, value) in optional {
        annotations.extend(value.map(|value| Annotation::new(name, value)));
    }
    annotations
}

fn pod_app(stdio: Stdio, words: &AppWords, image: &Image, layers: &Layers) -> Result<PodApp> {
    let flags = &words.flags;
    let mounts = flags.mount.iter().map(|text| volumes::mount(text));
    let mut mounts: Vec<_> = mounts.collect::<Result<_>>()?;
    let mut annotations = app_annotations(stdio, flags);
    annotations.extend(of_image(&image.manifest, &annotations));
    for (index, text) in flags.share.iter().enumerate() {
        let (share, cache) = volumes::share(text, format!("share-{index}"))?;
        mounts.push(share);
        annotations.extend(cache);
    }
    Ok(PodApp {
        name: app_name(flags, &image.manifest)?,
        image: PodImage {
            id: image.id.clone(),
            name: Some(image.manifest.name.clone()),
            labels: image.manifest.labels.clone(),
        },
        app: Some(app(words, image, layers)?),
        read_only_root_fs: flags.readonly_rootfs.unwrap_or(false),
        mounts,
        annotations,
    })
}

fn app_name(flags: &AppFlags, image: &ImageManifest) -> Result<String> {
    if let Some(name) = &flags.name {
        if !is_ac_name(name) {
            bail!("app name {name:?} may hold only a-z, 0-9 and single dashes");
        }
        return Ok(name.clone());
    }
    let last = image.name.rsplit('/').next().unwrap_or(&image.name);
    Ok(sanitize_ac_name(last).unwrap_or_else(|| "app".to_owned()))
}

fn app(words: &AppWords, image: &Image, layers: &Layers) -> Result<App> {
    let flags = &words.flags;
    let mut app = image.manifest.app.clone().unwrap_or_default();
    app.exec = exec::exec(&image.manifest, image.kind, flags, &words.arguments)?;
    app.environment = layers.merge(&app.environment, &flags.environment);
    if let Some(user) = &flags.user {
        let (user, group) = user
            .split_once(':')
            .map_or((user.as_str(), None), |(u, g)| (u, Some(g)));
        user.clone_into(&mut app.user);
        if let Some(group) = group {
            group.clone_into(&mut app.group);
        }
    }
    if let Some(group) = &flags.group {
        app.group.clone_from(group);
    }
    for id in [&mut app.user, &mut app.group] {
        if id.is_empty() {
            "0".clone_into(id);
        }
    }
    if let Some(ids) = &flags.supplementary_gids {
        app.supplementary_gids.clone_from(ids);
    }
    if let Some(path) = &flags.working_dir {
        if !path.starts_with('/') {
            bail!("working directory {path:?} is not absolute");
        }
        app.working_directory.clone_from(path);
    }
    isolators::apply(&mut app.isolators, flags)?;
    app.user_annotations = json_map(app.user_annotations, &flags.user_annotation);
    app.user_labels = json_map(app.user_labels, &flags.user_label);
    Ok(app)
}

fn json_map(
    base: Option<Map<String, Value>>,
    pairs: &[(String, String)],
) -> Option<Map<String, Value>> {
    if pairs.is_empty() {
        return base;
    }
    let mut map = base.unwrap_or_default();
    map.extend(
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.clone()))),
    );
    Some(map)
}

/// The app's own annotations, and which streams it has.
fn app_annotations(stdio: Stdio, flags: &AppFlags) -> Vec<Annotation> {
    let terminal = flags.tty == Some(true)
        || flags.stdin == Some(StdinMode::Tty)
        || (stdio.interactive && stdio.on_terminal);
    let (stdin, output) = match (terminal, flags.stdin) {
        (true, _) => ("tty", "tty"),
        (false, Some(StdinMode::Stream)) => ("stream", "stream"),
        (false, None) if stdio.interactive => ("stream", "stream"),
        (false, _) => ("null", "stream"),
    };
    let mut annotations = flags.annotation.clone();
    let signal = flags.stop_signal.map(|signal| signal.to_string());
    let limits: Vec<_> = flags.ulimit.iter().map(ToString::to_string).collect();
    let optional = [
        (annotation::STOP_SIGNAL, signal),
        (
            annotation::APP_PROCESSES,
            flags
                .pids_limit
                .filter(|count| *count > 0)
                .map(|count| count.to_string()),
        ),
        (
            annotation::APP_RESOURCE_LIMITS,
            (!limits.is_empty()).then(|| limits.join(",")),
        ),
    ];
    for (name, value) in optional {
        annotations.extend(value.map(|value| Annotation::new(name, value)));
    }
    annotations.extend([
        Annotation::new(annotation::APP_STDIN, stdin),
        Annotation::new(annotation::APP_STDOUT, output),
        Annotation::new(annotation::APP_STDERR, output),
    ]);
    annotations
}

/// What the image says about the running app, unless the command line says otherwise.
fn of_image(image: &ImageManifest, said: &[Annotation]) -> Vec<Annotation> {
    let is_open = |name: &&str| annotation::find(said, name).is_none();
    let names = [annotation::STOP_SIGNAL, annotation::HEALTH_CHECK];
    names
        .into_iter()
        .filter(is_open)
        .filter_map(|name| {
            let value = annotation::find(&image.annotations, name)?;
            Some(Annotation::new(name, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::exec::tests::image;
    use crate::cli::{Command, split};
    use std::ffi::OsString;

    fn manifest(line: &str, on_terminal: bool) -> Result<PodManifest> {
        let argv: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        let (cli, apps) = split(&argv)?;
        let Command::Run(run) = cli.command else {
            bail!("not run");
        };
        let request = PodRequest {
            flags: &run.pod,
            interactive: run.start.interactive,
            on_terminal,
            uids: None,
            apps: &apps,
            sandbox: None,
        };
        let images = vec![
            Image {
                id: "sha512-00".to_owned(),
                names: Vec::new(),
                kind: image::Kind::Aci,
                manifest: image(&["/tool"], &[]),
                rootfs: "rootfs.erofs".into(),
                data: vec![],
                layers: vec![],
                rootfs_bytes: 0,
                imported: std::time::UNIX_EPOCH,
                digest: None,
                used: std::time::UNIX_EPOCH,
                rootfs_digest: None,
                lease: None,
                below: Vec::new(),
                source_bytes: Vec::new(),
                history: Vec::new(),
            };
            apps.len()
        ];
        pod_manifest(&request, &images)
    }

    #[test]
    fn streams_follow_the_flags_and_the_terminal() -> Result<()> {
        for (flags, on_terminal, expected) in [
            ("", true, "null stream"),
            ("-i", true, "stream stream"),
            ("-t", false, "tty tty"),
            ("-it", true, "tty tty"),
            ("--interactive", true, "tty tty"),
            ("--interactive", false, "stream stream"),
            ("--stdin=null --tty=false", false, "null stream"),
        ] {
            let pod = manifest(&format!("fairing run {flags} IMAGE"), on_terminal)?;
            let find = |name| annotation::find(&pod.apps[0].annotations, name).unwrap_or("absent");
            let streams = format!(
                "{} {}",
                find(annotation::APP_STDIN),
                find(annotation::APP_STDOUT)
            );
            assert_eq!(streams, expected, "{flags}");
        }
        Ok(())
    }

    #[test]
    fn pod_of_one_app_takes_the_flags() -> Result<()> {
        let pod = manifest(
            "fairing run --timeout=1500ms --scratch-size=4Gi IMAGE --user=5:6 --workdir=/w --readonly-rootfs -- a",
            false,
        )?;
        let app = pod.apps[0].app.as_ref().context("no app")?;
        assert_eq!((app.user.as_str(), app.group.as_str()), ("5", "6"));
        assert_eq!(
            (app.exec.join(" "), app.working_directory.as_str()),
            ("/tool a".into(), "/w")
        );
        assert!(pod.apps[0].read_only_root_fs);
        assert_eq!(pod.apps[0].name, "tool");
        assert_eq!(
            annotation::find(&pod.annotations, annotation::POD_TIMEOUT),
            Some("1.5")
        );
        assert_eq!(
            annotation::find(&pod.annotations, annotation::POD_SCRATCH_SIZE),
            Some("4Gi")
        );
        Ok(())
    }

    #[test]
    fn pod_of_contradicting_flags_is_refused() {
        for flags in [
            "IMAGE IMAGE",
            "--interactive A --name=a B --name=b",
            "IMAGE --name=A_B",
            "IMAGE --workdir=rel",
            "--volume a,kind=empty --volume a,kind=empty IMAGE",
        ] {
            assert!(
                manifest(&format!("fairing run {flags}"), false).is_err(),
                "{flags}"
            );
        }
    }
}
