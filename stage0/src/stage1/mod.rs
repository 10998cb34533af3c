//! A stage 1 image: where it is found, what its manifest says, how it gets into a pod directory.
//!
//! Nothing here knows any particular stage 1; all that counts is in its manifest (contract section 1.1).

mod built_in;
mod copy;
mod kept;
mod lookup;
mod stored;
mod unpack;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use contract::{ImageManifest, annotation};

use crate::pods::Pod;
use crate::settings::Settings;

use copy::copy_tree;
use kept::Held;
pub use kept::collect;
pub use lookup::{Choice, Finder, Place};

/// How an app's root file system is given to a stage 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootForm {
    /// The image's EROFS file.
    Erofs,
    /// A directory, as any stage 1 of rkt's takes.
    Directory,
}

impl RootForm {
    /// As the stage 1's annotation spells it.
    fn name(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Directory => "directory",
        }
    }
}

/// A stage 1 unpacked in a directory: `manifest` and `rootfs/`.
#[derive(Debug)]
pub struct Stage1 {
    dir: PathBuf,
    manifest: ImageManifest,
    /// Keeps it, where it is unpacked for all pods.
    _held: Option<Held>,
}

impl Stage1 {
    /// Reads the manifest of the stage 1 in `dir`.
    ///
    /// # Errors
    /// If it is damaged or made for another architecture.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("manifest");
        let text = fs::read(&path)
            .with_context(|| format!("read the manifest of the stage 1 in {}", dir.display()))?;
        let manifest: ImageManifest = serde_json::from_slice(&text)
            .with_context(|| format!("read {}: the stage 1 image is damaged", path.display()))?;
        if !dir.join("rootfs").is_dir() {
            bail!(
                "the stage 1 in {} is damaged: it has no folder rootfs",
                dir.display()
            );
        }
        let stage1 = Self {
            dir: dir.to_owned(),
            manifest,
            _held: None,
        };
        stage1.check_architecture()?;
        Ok(stage1)
    }

    /// The stage 1 that was chosen: a directory, or what is unpacked in the data directory once.
    ///
    /// # Errors
    /// As [`Stage1::open`], and if it cannot be unpacked.
    pub fn unpacked(choice: &Choice, settings: &Settings) -> Result<Self> {
        let held = match &choice.place {
            Place::Image(image) => stored::unpack(image, settings)?,
            Place::Path(path) if path.is_file() => unpack::unpack(path, &settings.dir)?,
            Place::Path(path) => {
                let path = fs::canonicalize(path)
                    .with_context(|| format!("find stage 1 {}", path.display()))?;
                return Self::open(&path);
            }
        };
        let stage1 = Self::open(held.path())?;
        Ok(Self {
            _held: Some(held),
            ..stage1
        })
    }

    /// The stage 1 of a pod.
    ///
    /// # Errors
    /// As [`Stage1::open`].
    pub fn of_pod(pod: &Pod) -> Result<Self> {
        Self::open(&pod.path().join("stage1"))
    }

    fn check_architecture(&self) -> Result<()> {
        let label = self.manifest.labels.iter().find(|l| l.name == "arch");
        match label {
            Some(label) if label.value != host_architecture() => bail!(
                "the stage 1 in {} is for {}, this host is {}",
                self.dir.display(),
                label.value,
                host_architecture()
            ),
            _ => Ok(()),
        }
    }

    /// The image's name.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// Version of the interface it follows.
    pub fn interface_version(&self) -> u32 {
        self.annotation(annotation::INTERFACE_VERSION)
            .and_then(|version| version.parse().ok())
            .unwrap_or(1)
    }

    /// Whether it takes an app's root file system in this form.
    pub fn takes(&self, form: RootForm) -> bool {
        self.annotation(annotation::STAGE1_ROOTFS)
            .unwrap_or(RootForm::Directory.name())
            .split(',')
            .any(|name| name.trim() == form.name())
    }

    /// Whether its files may be shared by all pods as hard links.
    pub fn shares_files(&self) -> bool {
        self.annotation(annotation::STAGE1_SHARED_FILES) == Some("true")
    }

    /// The program of one of rkt's entrypoints, as `run` or `app/add`.
    ///
    /// # Errors
    /// If this stage 1 has none of that name, or the program is missing.
    pub fn entrypoint(&self, name: &str) -> Result<PathBuf> {
        self.program(name, &format!("{}{name}", annotation::ENTRYPOINT_PREFIX))
    }

    /// The program that tells whether this host can run pods.
    ///
    /// # Errors
    /// As [`Stage1::entrypoint`].
    pub fn probe(&self) -> Result<PathBuf> {
        self.program("probe", annotation::STAGE1_PROBE)
    }

    /// The program that runs one of the machine's own in an app.
    ///
    /// # Errors
    /// As [`Stage1::entrypoint`].
    pub fn serve(&self) -> Result<PathBuf> {
        self.program("serve", annotation::STAGE1_SERVE)
    }

    fn program(&self, name: &str, annotation: &str) -> Result<PathBuf> {
        let path = self.annotation(annotation).with_context(|| {
            format!("{name} not implemented for stage 1 {}", self.manifest.name)
        })?;
        let program = self.dir.join("rootfs").join(path.trim_start_matches('/'));
        let mode = fs::metadata(&program)
            .with_context(|| {
                format!(
                    "the stage 1 in {} is damaged: its {name} entrypoint {path} is missing",
                    self.dir.display()
                )
            })?
            .permissions()
            .mode();
        if mode & 0o111 == 0 {
            bail!(
                "the stage 1 in {} is damaged: its {name} entrypoint {path} is not executable",
                self.dir.display()
            );
        }
        Ok(program)
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        annotation::find(&self.manifest.annotations, name)
    }

    /// Lays the image out in a pod's `stage1/`, but for what is called as one of `without` in its root.
    ///
    /// # Errors
    /// If a file cannot be linked or copied.
    pub fn install(&self, pod: &Pod, without: &[&str]) -> Result<()> {
        let target = pod.path().join("stage1");
        crate::pods::make_directory(&target)?;
        fs::copy(self.dir.join("manifest"), target.join("manifest"))
            .with_context(|| format!("copy the stage 1 manifest to {}", target.display()))?;
        copy_tree(
            &self.dir.join("rootfs"),
            &pod.dir().stage1_rootfs(),
            self.shares_files(),
            without,
        )?;
        crate::pods::make_directory(&pod.dir().status())
    }
}

/// This host's architecture as appc spells it.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage1(manifest: &str) -> Result<(tempfile::TempDir, Result<Stage1>)> {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("rootfs"))?;
        fs::write(dir.path().join("rootfs/run"), "")?;
        fs::write(dir.path().join("manifest"), manifest)?;
        let stage1 = Stage1::open(dir.path());
        Ok((dir, stage1))
    }

    #[test]
    fn stage1_of_another_architecture_is_refused() -> Result<()> {
        let (_dir, stage1) = stage1(
            r#"{"acVersion":"0.8.11","acKind":"ImageManifest","name":"x","labels":[{"name":"arch","value":"ppc64le"}]}"#,
        )?;
        let error = stage1.expect_err("another architecture").to_string();
        assert!(error.contains("is for ppc64le"), "{error}");
        Ok(())
    }

    #[test]
    fn stage1_entrypoint_missing_or_not_executable_is_named() -> Result<()> {
        let (_dir, stage1) = stage1(
            r#"{"acVersion":"0.8.11","acKind":"ImageManifest","name":"x","annotations":[
                {"name":"coreos.com/rkt/stage1/run","value":"/run"},
                {"name":"coreos.com/rkt/stage1/gc","value":"/gc"}]}"#,
        )?;
        let stage1 = stage1?;
        for (name, reason) in [
            ("stop", "not implemented"),
            ("gc", "missing"),
            ("run", "not executable"),
        ] {
            let error = stage1.entrypoint(name).expect_err("no program").to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(stage1.interface_version(), 1);
        Ok(())
    }
}
