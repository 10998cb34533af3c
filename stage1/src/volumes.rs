//! Which volume goes where: the appc rules of volumes, mounts and mount points (specification, "Pod Manifest Schema" and
//! "Image Manifest Schema"), as rkt applied them. Pure functions: nothing of the host is looked at.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use contract::image::{App as ManifestApp, MountPoint};
use contract::pod::{PodApp, PodManifest, Volume};
use contract::{annotation, name};
use guest_init::protocol::{self, Cache, MAX_SHARES};
use serde::{Deserialize, Serialize};

use crate::plan::PreparedImage;

/// Image annotation of docker's images: their mount points begin with what the image has there.
const DOCKER: &str = "appc.io/docker/repository";

/// The most mounts of one app.
const MAX_MOUNTS: usize = 512;

/// Permission bits of an empty volume that names none.
const DEFAULT_MODE: u32 = 0o755;

/// A folder or file of the host that the machine is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Absolute path on the host; links are followed.
    pub source: PathBuf,
    /// Whether the machine cannot write it, whatever its kernel says.
    pub read_only: bool,
    /// Whether what is mounted below comes along.
    pub recursive: bool,
}

/// A share and what its source was when it was taken: a path may lead elsewhere later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The share.
    pub share: Share,
    /// Device of its file system.
    pub device: u64,
    /// Number of its inode there.
    pub inode: u64,
}

/// Resolves the mounts of a pod's apps, and gathers the shares that they need.
pub struct Resolver<'a> {
    pod: &'a PodManifest,
    /// What the mounts resolved so far need, in the order of their numbers.
    pub shares: Vec<Share>,
    /// What the user should know and nothing fails for.
    pub warnings: Vec<String>,
}

impl<'a> Resolver<'a> {
    /// Nothing resolved yet.
    ///
    /// # Errors
    /// When volumes of the pod are malformed, or two have one name.
    pub fn new(pod: &'a PodManifest) -> Result<Self> {
        let mut names = HashSet::new();
        for volume in &pod.volumes {
            check(volume)?;
            let name = &volume.name;
            ensure!(names.insert(name), "two volumes are called {name:?}");
        }
        Ok(Self {
            pod,
            shares: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// The mounts of one app: those that the pod manifest lists, then the image's mount points that are still free.
    ///
    /// # Errors
    /// When a mount names no volume of the pod, or leads to no absolute path.
    pub fn mounts(
        &mut self,
        app: &PodApp,
        program: &ManifestApp,
        image: &PreparedImage,
    ) -> Result<Vec<protocol::Mount>> {
        let count = app.mounts.len() + program.mount_points.len();
        ensure!(
            count <= MAX_MOUNTS,
            "{count} mounts and mount points; an app has at most {MAX_MOUNTS}"
        );
        let mut mounts = Vec::new();
        for mount in &app.mounts {
            let (name, path) = (&mount.volume, &mount.path);
            let mut points = program.mount_points.iter();
            let point = points.find(|point| point.name == *name);
            let own = mount.app_volume.as_ref();
            let volume = own.or_else(|| self.by_name(name));
            let volume = volume
                .with_context(|| format!("mount at {path}: the pod has no volume {name:?}"))?;
            mounts.push(self.mount(app, volume, path, point)?);
        }
        for point in &program.mount_points {
            name::check("mount point", &point.name)?;
            let path = Path::new(&point.path);
            if mounts.iter().any(|mount| Path::new(&mount.target) == path) {
                continue;
            }
            let mount = match self.by_name(&point.name) {
                Some(volume) => self.mount(app, volume, &point.path, Some(point))?,
                None => self.implicit(&app.name, point, image)?,
            };
            mounts.push(mount);
        }
        // What lies in another volume is mounted after it.
        mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
        Ok(mounts)
    }

    fn by_name(&self, name: &str) -> Option<&'a Volume> {
        self.pod.volumes.iter().find(|volume| volume.name == name)
    }

    fn mount(
        &mut self,
        app: &PodApp,
        volume: &Volume,
        target: &str,
        point: Option<&MountPoint>,
    ) -> Result<protocol::Mount> {
        check(volume)?;
        let read_only = volume
            .read_only
            .unwrap_or_else(|| point.is_some_and(|point| point.read_only));
        let volume = match &volume.source {
            Some(source) => protocol::Volume::Share {
                number: self.share(Share {
                    source: source.into(),
                    read_only,
                    recursive: volume.recursive.unwrap_or(true),
                })?,
                cache: self.cache(app, &volume.name)?,
            },
            None => protocol::Volume::Empty {
                name: volume.name.clone(),
                mode: mode(volume)?,
                uid: volume.uid.unwrap_or(0),
                gid: volume.gid.unwrap_or(0),
            },
        };
        place(volume, target, read_only)
    }

    /// What the app's annotations say of a volume, else the pod's.
    fn cache(&self, app: &PodApp, volume: &str) -> Result<Cache> {
        let name = format!("{}{volume}", annotation::VOLUME_CACHE);
        let mut lists = [&app.annotations, &self.pod.annotations].into_iter();
        let Some(text) = lists.find_map(|list| annotation::find(list, &name)) else {
            return Ok(Cache::Auto);
        };
        let mut all = Cache::ALL.into_iter();
        all.find(|cache| cache.name() == text).with_context(|| {
            format!("volume {volume:?}: cache={text} is none of auto, always, none")
        })
    }

    /// What a mount point gets that nobody gave a volume for.
    fn implicit(
        &mut self,
        app: &str,
        point: &MountPoint,
        image: &PreparedImage,
    ) -> Result<protocol::Mount> {
        let is_docker = annotation::find(&image.manifest.annotations, DOCKER).is_some();
        let volume = if is_docker {
            protocol::Volume::Layer
        } else {
            self.warnings.push(format!(
                "no volume for mount point {:?} of app {app:?}: it gets an empty one at {}",
                point.name, point.path
            ));
            protocol::Volume::Empty {
                name: format!("{app}-{}", point.name),
                mode: DEFAULT_MODE,
                uid: 0,
                gid: 0,
            }
        };
        place(volume, &point.path, point.read_only)
    }

    /// The number of a share, the same for the same source: two apps that share a folder share its locks, too.
    ///
    /// # Errors
    /// When there are too many.
    pub fn share(&mut self, share: Share) -> Result<u16> {
        let known = self.shares.iter().position(|known| *known == share);
        let number = u16::try_from(known.unwrap_or(self.shares.len()))?;
        if known.is_none() {
            ensure!(
                number < MAX_SHARES,
                "more than {MAX_SHARES} different host volumes"
            );
            self.shares.push(share);
        }
        Ok(number)
    }
}

fn place(volume: protocol::Volume, target: &str, read_only: bool) -> Result<protocol::Mount> {
    ensure!(
        target.starts_with('/') && !target.contains('\0'),
        "mount at {target:?}: the path is not absolute"
    );
    let components = || Path::new(target).components();
    ensure!(
        components().all(|component| component != Component::ParentDir),
        "mount at {target:?}: the path climbs"
    );
    ensure!(
        components().count() > 1,
        "mount at {target:?}: a volume cannot take the place of the app's root"
    );
    Ok(protocol::Mount {
        volume,
        target: target.to_owned(),
        read_only,
    })
}

fn check(volume: &Volume) -> Result<()> {
    let name = &volume.name;
    name::check("volume", name)?;
    match (volume.kind.as_str(), &volume.source) {
        ("host", Some(source)) => ensure!(
            source.starts_with('/') && !source.contains('\0'),
            "volume {name:?}: source {source:?} is not an absolute path"
        ),
        ("host", None) => bail!("volume {name:?}: a host volume needs a source"),
        ("empty", None) => {}
        ("empty", Some(_)) => bail!("volume {name:?}: an empty volume has no source"),
        (kind, _) => bail!("volume {name:?}: unknown kind {kind:?} (host, empty)"),
    }
    mode(volume).map(drop)
}

fn mode(volume: &Volume) -> Result<u32> {
    let Some(text) = &volume.mode else {
        return Ok(DEFAULT_MODE);
    };
    let mode = u32::from_str_radix(text, 8).ok();
    let mode = mode.filter(|mode| *mode <= 0o7777);
    let name = &volume.name;
    mode.with_context(|| format!("volume {name:?}: mode {text:?} is not octal, at most 7777"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::PreparedRoot;

    const LABELLED: &str = r#"[{"name":"appc.io/docker/repository","value":"x"}]"#;

    struct Resolved {
        mounts: Vec<protocol::Mount>,
        shares: Vec<Share>,
        warnings: Vec<String>,
    }

    fn pod(volumes: &Value, mounts: &Value) -> Result<PodManifest> {
        Ok(serde_json::from_value(json!({
            "acVersion": "0.8.11", "acKind": "PodManifest", "volumes": volumes,
            "apps": [{"name": "app", "image": {"id": "sha512-00"}, "mounts": mounts}]
        }))?)
    }

    fn image(points: &Value, docker: bool) -> Result<PreparedImage> {
        let labels: Value = serde_json::from_str(if docker { LABELLED } else { "[]" })?;
        Ok(PreparedImage {
            manifest: serde_json::from_value(json!({
                "acVersion": "0.8.11", "acKind": "ImageManifest", "name": "x", "annotations": labels,
                "app": {"exec": ["/x"], "user": "0", "group": "0", "mountPoints": points}
            }))?,
            root: PreparedRoot::Folder("/x".into()),
        })
    }

    /// The mounts of a pod's only app, with an image of these mount points.
    fn resolve(volumes: &Value, mounts: &Value, points: &Value, docker: bool) -> Result<Resolved> {
        let pod = pod(volumes, mounts)?;
        let image = image(points, docker)?;
        let program = image.manifest.app.as_ref().context("no app")?;
        let mut resolver = Resolver::new(&pod)?;
        let mounts = resolver.mounts(&pod.apps[0], program, &image)?;
        Ok(Resolved {
            mounts,
            shares: resolver.shares,
            warnings: resolver.warnings,
        })
    }

    fn refused(volumes: &Value, mounts: &Value) -> String {
        let error = resolve(volumes, mounts, &json!([]), false).err();
        format!("{:#}", error.expect("refused"))
    }

    #[test]
    fn mount_of_the_manifest_is_read_only_as_volume_says_else_as_its_mount_point() {
        let points = json!([{"name": "data", "path": "/image", "readOnly": true}]);
        let mounts = json!([{"volume": "data", "path": "/data"}]);
        for (said, expected) in [
            (json!(null), true),
            (json!(false), false),
            (json!(true), true),
        ] {
            let mut volume = json!({"name": "data", "kind": "host", "source": "/srv"});
            if !said.is_null() {
                volume["readOnly"] = said;
            }
            let resolved = resolve(&json!([volume]), &mounts, &points, false).expect("a plan");
            assert_eq!(resolved.mounts[0].target, "/data");
            assert_eq!(resolved.mounts[0].read_only, expected);
            let share = Share {
                source: "/srv".into(),
                read_only: expected,
                recursive: true,
            };
            assert_eq!(resolved.shares[0], share);
            // The image's path is still free, and gets the volume of the same name, too.
            assert_eq!(resolved.mounts[1].target, "/image");
        }
    }

    #[test]
    fn volume_in_the_mount_itself_goes_before_the_pods() {
        let volumes = json!([{"name": "v", "kind": "host", "source": "/pods"}]);
        let own = json!({"name": "v", "kind": "host", "source": "/own", "recursive": false});
        let mounts = json!([{"volume": "v", "path": "/v", "appVolume": own}]);
        let resolved = resolve(&volumes, &mounts, &json!([]), false).expect("a plan");
        assert_eq!(resolved.shares.len(), 1);
        assert_eq!(resolved.shares[0].source, Path::new("/own"));
        assert!(!resolved.shares[0].recursive);
    }

    #[test]
    fn cache_is_what_the_app_says_else_the_pod_else_auto() {
        let volumes = ["v", "w", "x"]
            .map(|name| json!({"name": name, "kind": "host", "source": format!("/{name}")}));
        let mounts =
            ["v", "w", "x"].map(|name| json!({"volume": name, "path": format!("/{name}")}));
        let says = |volume: &str, cache: &str| json!({"name": format!("fairing/cache/{volume}"), "value": cache});
        let caches = |app: Value| -> Result<Vec<Cache>> {
            let mut pod = pod(&json!(volumes), &json!(mounts))?;
            pod.annotations =
                serde_json::from_value(json!([says("v", "none"), says("w", "none")]))?;
            pod.apps[0].annotations = serde_json::from_value(app)?;
            let mounts = Resolver::new(&pod)?.mounts(
                &pod.apps[0],
                &ManifestApp::default(),
                &image(&json!([]), false)?,
            )?;
            let cache = |mount: protocol::Mount| match mount.volume {
                protocol::Volume::Share { cache, .. } => cache,
                other => panic!("{other:?}"),
            };
            Ok(mounts.into_iter().map(cache).collect())
        };
        let found = caches(json!([says("w", "always")])).expect("a plan");
        assert_eq!(found, [Cache::None, Cache::Always, Cache::Auto]);
        let error = caches(json!([says("w", "sometimes")])).expect_err("no such policy");
        assert!(
            format!("{error:#}").contains("none of auto, always, none"),
            "{error:#}"
        );
    }

    #[test]
    fn same_source_is_one_share_unless_one_is_read_only() {
        let volume = |name: &str, read_only: bool| json!({"name": name, "kind": "host", "source": "/srv", "readOnly": read_only});
        let volumes = json!([volume("a", false), volume("b", false), volume("c", true)]);
        let mounts = json!([{"volume": "a", "path": "/a"}, {"volume": "b", "path": "/b"}, {"volume": "c", "path": "/c"}]);
        let resolved = resolve(&volumes, &mounts, &json!([]), false).expect("a plan");
        let numbers: Vec<_> = resolved.mounts.iter().map(|mount| &mount.volume).collect();
        let [first, second] = [0, 1].map(|number| protocol::Volume::Share {
            number,
            cache: Cache::Auto,
        });
        assert_eq!(numbers, [&first, &first, &second]);
        assert_eq!(resolved.shares.len(), 2);
    }

    #[test]
    fn mount_point_that_nobody_serves_is_empty_or_for_docker_the_images_own() {
        let points = json!([{"name": "data", "path": "/data"}]);
        let plain = resolve(&json!([]), &json!([]), &points, false).expect("a plan");
        let empty = protocol::Volume::Empty {
            name: "app-data".into(),
            mode: 0o755,
            uid: 0,
            gid: 0,
        };
        assert_eq!(plain.mounts[0].volume, empty);
        assert!(plain.warnings[0].contains("data"));
        let docker = resolve(&json!([]), &json!([]), &points, true).expect("a plan");
        assert_eq!(docker.mounts[0].volume, protocol::Volume::Layer);
        assert!(docker.warnings.is_empty());
        let taken = json!([{"volume": "v", "path": "//data/."}]);
        let volumes = json!([{"name": "v", "kind": "empty"}]);
        let resolved = resolve(&volumes, &taken, &points, true).expect("a plan");
        assert_eq!(resolved.mounts.len(), 1);
    }

    #[test]
    fn volumes_and_mounts_that_make_no_sense_are_refused() {
        let mount = |path: &str| json!([{"volume": "v", "path": path}]);
        let empty = json!([{"name": "v", "kind": "empty"}]);
        for (volumes, mounts, reason) in [
            (json!([]), mount("/v"), "no volume"),
            (empty.clone(), mount("v"), "not absolute"),
            (empty.clone(), mount("/./"), "root"),
            (empty.clone(), mount("/.."), "climbs"),
            (empty.clone(), mount("/a/../../b"), "climbs"),
            (json!([{"name": "V", "kind": "empty"}]), json!([]), "ACName"),
            (json!([{"name": "v", "kind": "host"}]), json!([]), "source"),
            (
                json!([{"name": "v", "kind": "host", "source": "a"}]),
                json!([]),
                "absolute",
            ),
            (
                json!([{"name": "v", "kind": "empty", "source": "/a"}]),
                json!([]),
                "no source",
            ),
            (json!([{"name": "v", "kind": "tmpfs"}]), json!([]), "kind"),
            (
                json!([{"name": "v", "kind": "empty", "mode": "0888"}]),
                json!([]),
                "octal",
            ),
            (
                json!([{"name": "v", "kind": "empty", "mode": "70000"}]),
                json!([]),
                "octal",
            ),
            (json!([empty[0], empty[0]]), json!([]), "two volumes"),
        ] {
            let error = refused(&volumes, &mounts);
            assert!(error.contains(reason), "{reason} not in {error}");
        }
    }

    #[test]
    fn mount_point_of_the_image_named_by_a_path_is_refused_and_outer_ones_come_first() {
        let climbing = json!([{"name": "x/../../../dev", "path": "/data"}]);
        assert!(resolve(&json!([]), &json!([]), &climbing, false).is_err());
        let many: Vec<_> = (0..600)
            .map(|n| json!({"name": format!("p{n}"), "path": format!("/{n}")}))
            .collect();
        assert!(resolve(&json!([]), &json!([]), &json!(many), true).is_err());
        let points = json!([{"name": "html", "path": "/var/www/html"}]);
        let volumes = json!([{"name": "config", "kind": "host", "source": "/srv"}]);
        let mounts = json!([{"volume": "config", "path": "/var/www/html/config"}]);
        let resolved = resolve(&volumes, &mounts, &points, true).expect("a plan");
        let targets: Vec<_> = resolved
            .mounts
            .iter()
            .map(|mount| mount.target.as_str())
            .collect();
        assert_eq!(targets, ["/var/www/html", "/var/www/html/config"]);
    }

    #[test]
    fn more_shares_than_there_are_numbers_are_refused() {
        let all = 0..=MAX_SHARES;
        let volumes: Vec<_> = all
            .clone()
            .map(|n| json!({"name": format!("v{n}"), "kind": "host", "source": format!("/{n}")}))
            .collect();
        let mounts: Vec<_> = all
            .map(|n| json!({"volume": format!("v{n}"), "path": format!("/{n}")}))
            .collect();
        assert!(refused(&json!(volumes), &json!(mounts)).contains("more than"));
    }
}
