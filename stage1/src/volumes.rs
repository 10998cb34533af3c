//! Which volume goes where: the appc rules of volumes, mounts and mount points (specification, "Pod Manifest Schema" and
//! "Image Manifest Schema"), as rkt applied them. Pure functions: nothing of the host is looked at.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use contract::annotation;
use contract::image::{App as ManifestApp, MountPoint};
use contract::pod::{PodApp, PodManifest, Volume};
use guest_init::protocol::{self, MAX_SHARES};

use crate::plan::PreparedImage;

/// Image annotation of docker's images: their mount points begin with what the image has there.
const DOCKER: &str = "appc.io/docker/repository";

/// Permission bits of an empty volume that names none.
const DEFAULT_MODE: u32 = 0o755;

/// A folder or file of the host that the machine is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Absolute path on the host; links are followed.
    pub source: PathBuf,
    /// Whether the machine cannot write it, whatever its kernel says.
    pub read_only: bool,
    /// Whether what is mounted below comes along.
    pub recursive: bool,
}

/// Resolves the mounts of a pod's apps, and gathers the shares that they need.
pub struct Resolver<'a> {
    pod: &'a PodManifest,
    shares: Vec<Share>,
    /// What the user should know and nothing fails for.
    pub warnings: Vec<String>,
}

impl<'a> Resolver<'a> {
    /// Nothing resolved yet.
    ///
    /// # Errors
    /// When volumes of the pod are malformed, or two have one name.
    pub fn new(pod: &'a PodManifest) -> Result<Self> {
        for (index, volume) in pod.volumes.iter().enumerate() {
            check(volume)?;
            ensure!(
                pod.volumes[..index]
                    .iter()
                    .all(|other| other.name != volume.name),
                "two volumes are called {:?}",
                volume.name
            );
        }
        Ok(Self {
            pod,
            shares: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// The shares that the mounts resolved so far need, in the order of their numbers.
    pub fn into_shares(self) -> Vec<Share> {
        self.shares
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
        let mut mounts = Vec::new();
        for mount in &app.mounts {
            let point = program
                .mount_points
                .iter()
                .find(|point| point.name == mount.volume);
            let volume = mount
                .app_volume
                .as_ref()
                .or_else(|| self.by_name(&mount.volume));
            let volume = volume.cloned().with_context(|| {
                format!(
                    "mount at {}: the pod has no volume {:?}",
                    mount.path, mount.volume
                )
            })?;
            mounts.push(self.mount(&volume, &mount.path, point)?);
        }
        for point in &program.mount_points {
            if mounts.iter().any(|mount| same(&mount.target, &point.path)) {
                continue;
            }
            let mount = match self.by_name(&point.name).cloned() {
                Some(volume) => self.mount(&volume, &point.path, Some(point))?,
                None => self.implicit(&app.name, point, image)?,
            };
            mounts.push(mount);
        }
        Ok(mounts)
    }

    fn by_name(&self, name: &str) -> Option<&'a Volume> {
        self.pod.volumes.iter().find(|volume| volume.name == name)
    }

    fn mount(
        &mut self,
        volume: &Volume,
        target: &str,
        point: Option<&MountPoint>,
    ) -> Result<protocol::Mount> {
        check(volume)?;
        let read_only = volume
            .read_only
            .unwrap_or_else(|| point.is_some_and(|point| point.read_only));
        let volume = match &volume.source {
            Some(source) => self.share(Share {
                source: source.into(),
                read_only,
                recursive: volume.recursive.unwrap_or(true),
            })?,
            None => protocol::Volume::Empty {
                name: volume.name.clone(),
                mode: mode(volume)?,
                uid: volume.uid.unwrap_or(0),
                gid: volume.gid.unwrap_or(0),
            },
        };
        place(volume, target, read_only)
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

    /// The same share for the same source: two apps that share a folder share its locks, too.
    fn share(&mut self, share: Share) -> Result<protocol::Volume> {
        let known = self.shares.iter().position(|known| *known == share);
        let number = known.unwrap_or(self.shares.len());
        if known.is_none() {
            ensure!(
                self.shares.len() < usize::from(MAX_SHARES),
                "more than {MAX_SHARES} different host volumes"
            );
            self.shares.push(share);
        }
        Ok(protocol::Volume::Share(u16::try_from(number)?))
    }
}

fn place(volume: protocol::Volume, target: &str, read_only: bool) -> Result<protocol::Mount> {
    ensure!(
        target.starts_with('/') && !target.contains('\0'),
        "mount at {target:?}: the path is not absolute"
    );
    ensure!(
        Path::new(target).components().count() > 1,
        "mount at {target:?}: a volume cannot take the place of the app's root"
    );
    Ok(protocol::Mount {
        volume,
        target: target.to_owned(),
        read_only,
    })
}

/// Whether two paths are the same but for repeated slashes and dots.
fn same(one: &str, other: &str) -> bool {
    Path::new(one)
        .components()
        .eq(Path::new(other).components())
}

fn check(volume: &Volume) -> Result<()> {
    let name = &volume.name;
    ensure!(
        contract::name::is_ac_name(name),
        "volume name {name:?} is not an ACName (a-z, 0-9, inner -)"
    );
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
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777);
    mode.with_context(|| {
        format!(
            "volume {:?}: mode {text:?} is not octal, at most 7777",
            volume.name
        )
    })
}
