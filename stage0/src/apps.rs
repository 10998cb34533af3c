//! Apps that come and go while their pod runs: their files in the pod directory, and its stage 1's entrypoints for them
//! (contract section 1.7).
//!
//! An app is the pod's from the moment its manifest names it until it no longer does. What a killed command leaves beside
//! that is removed by the next that adds an app of the name, or with the pod.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use contract::pod::PodApp;
use contract::{PodDir, PodManifest};
use image::Image;

use crate::directories;
use crate::layout::{self, root_form};
use crate::pods::{self, Mark, Pod};
use crate::stage1::{RootForm, Stage1};

/// Exit code of `app/stop` for an app that does not run.
const NOT_RUNNING: i32 = 5;

/// What the entrypoints find programs by, where this command has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The apps of a pod that takes new ones, which no other command changes meanwhile.
pub struct Apps {
    pod: Pod,
    stage1: Stage1,
    debug: bool,
    _lock: File,
}

/// How an entrypoint ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crossed {
    Done,
    NotRunning,
}

impl Apps {
    /// The apps of `pod`, once no other command is at them.
    ///
    /// # Errors
    /// If the pod takes no new apps.
    pub fn of(pod: Pod, debug: bool) -> Result<Self> {
        let manifest = pod.manifest()?;
        if !manifest.is_mutable() {
            bail!(
                "the apps of pod {} are those that it began with; `fairing app sandbox` makes a pod that takes others",
                pod.uuid()
            );
        }
        let path = pod.path().join("pod.lck");
        let lock = || -> io::Result<File> {
            let mut options = File::options();
            let lock = options
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            if lock.try_lock().is_err() {
                crate::note(&format!(
                    "waiting for another command that changes apps of pod {}",
                    pod.uuid()
                ));
                lock.lock()?;
            }
            Ok(lock)
        };
        Ok(Self {
            stage1: Stage1::of_pod(&pod)?,
            debug,
            _lock: lock().with_context(|| format!("lock {}", path.display()))?,
            pod,
        })
    }

    /// Adds an app, which runs from `image`, without starting it.
    ///
    /// # Errors
    /// If the name is taken, or stage 1 refuses; the pod is then as before.
    pub fn add(&self, app: PodApp, image: &Image) -> Result<()> {
        self.pod.expect_running()?;
        self.stage1.entrypoint("app/add")?;
        let name = app.name.clone();
        let before = self.pod.manifest()?;
        if before.apps.iter().any(|other| other.name == name) {
            bail!(
                "pod {} has an app {name} already; --name gives this one another name",
                self.pod.uuid()
            );
        }
        self.clear(&name)?;
        let mut after = before.clone();
        let added = self.place(&app, image).and_then(|()| {
            after.apps.push(app);
            self.write_manifest(&after)?;
            self.cross("app/add", &name)?;
            Mark::Created.put(self.pod.dir(), &name)
        });
        if let Err(error) = added {
            // Where it had come as far as that.
            let _ = self.cross("app/rm", &name);
            self.write_manifest(&before)?;
            self.clear(&name)?;
            return Err(error);
        }
        Ok(())
    }

    /// Starts an app that does not run.
    ///
    /// # Errors
    /// If it runs, or cannot be started.
    pub fn start(&self, name: &str) -> Result<()> {
        self.pod.expect_running()?;
        self.expect(name)?;
        self.stage1.entrypoint("app/start")?;
        let dir = self.pod.dir();
        let before = pods::exit_code(dir, name);
        pods::forget_status(dir, name)?;
        if let Err(error) = self.cross("app/start", name) {
            // What was refused has changed nothing.
            if let (Some(code), None) = (before, pods::exit_code(dir, name)) {
                pods::write_report(dir, "status", name, format!("{code}\n").as_bytes())?;
            }
            return Err(error);
        }
        Mark::Created.put(dir, name)?;
        Mark::Started.put(dir, name)
    }

    /// Stops an app, and returns when it has ended.
    ///
    /// # Errors
    /// If it does not run.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.pod.expect_running()?;
        self.expect(name)?;
        match self.cross("app/stop", name)? {
            Crossed::Done => Ok(()),
            Crossed::NotRunning => bail!("app {name} of pod {} is not running", self.pod.uuid()),
        }
    }

    /// Removes an app; one that runs is stopped first.
    ///
    /// # Errors
    /// If stage 1 cannot remove it.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.expect(name)?;
        if contract::is_running(self.pod.path())? {
            self.cross("app/stop", name)?;
            self.cross("app/rm", name)?;
        }
        let mut manifest = self.pod.manifest()?;
        manifest.apps.retain(|app| app.name != name);
        self.write_manifest(&manifest)?;
        self.clear(name)
    }

    fn expect(&self, name: &str) -> Result<()> {
        let apps = self.pod.manifest()?.apps;
        if apps.iter().any(|app| app.name == name) {
            return Ok(());
        }
        let names: Vec<_> = apps.iter().map(|app| app.name.as_str()).collect();
        bail!(
            "pod {} has no app {name}; it has {}",
            self.pod.uuid(),
            if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            }
        )
    }

    fn place(&self, app: &PodApp, image: &Image) -> Result<()> {
        let dir = self.pod.dir();
        let form = root_form(&self.stage1, false)?;
        layout::place_app(dir, &app.name, image, form)?;
        if form == RootForm::Directory {
            // Where the names of its layers begin.
            std::env::set_current_dir(self.pod.path())
                .with_context(|| format!("enter {}", self.pod.path().display()))?;
            directories::mount_all(dir, std::iter::once(&*app.name))?;
        }
        let environment = app.app.iter().flat_map(|app| &app.environment);
        let lines: String = environment
            .map(|variable| format!("{}={}\n", variable.name, variable.value))
            .collect();
        pods::write_report(dir, "env", &app.name, lines.as_bytes())
    }

    /// Removes what lies in the pod of an app that is not in its manifest.
    fn clear(&self, name: &str) -> Result<()> {
        let dir = self.pod.dir();
        directories::unmount_below(&dir.app_rootfs(name))?;
        for folder in folders(dir, name)? {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", folder.display()));
                }
                _ => {}
            }
        }
        pods::forget(dir, name)
    }

    /// Replaces the pod manifest, whole or not at all.
    fn write_manifest(&self, manifest: &PodManifest) -> Result<()> {
        let (path, new) = (self.pod.dir().manifest(), self.pod.path().join(".pod"));
        let _ = fs::remove_file(&new);
        layout::write(&new, &serde_json::to_vec(manifest)?)?;
        fs::rename(&new, &path).with_context(|| format!("replace {}", path.display()))
    }

    /// Runs an entrypoint for an app; what it tells is passed on, or, if it fails, the error.
    fn cross(&self, entrypoint: &str, name: &str) -> Result<Crossed> {
        let pod = &self.pod;
        let mut command = crossing(pod, &self.stage1, entrypoint)?;
        command.arg(format!("--debug={}", self.debug));
        if entrypoint == "app/add" {
            command.arg(format!("--uuid={}", pod.uuid()));
        }
        let output = command
            .arg(format!("--app={name}"))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run the {entrypoint} entrypoint of pod {}", pod.uuid()))?;
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        match output.status.code() {
            Some(0) => {
                eprint!("{told}");
                Ok(Crossed::Done)
            }
            Some(NOT_RUNNING) if entrypoint == "app/stop" => Ok(Crossed::NotRunning),
            _ => {
                let told = told.trim_end().trim_start_matches("fairing: ");
                bail!("{entrypoint} of app {name} in pod {}: {told}", pod.uuid())
            }
        }
    }
}

/// A "crossing" entrypoint of a running pod, without its arguments (contract section 1.7).
///
/// # Errors
/// If the pod does not run, or its stage 1 has none of that name.
pub fn crossing(pod: &Pod, stage1: &Stage1, entrypoint: &str) -> Result<Command> {
    let mut command = Command::new(stage1.entrypoint(entrypoint)?);
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    command
        .env_clear()
        .env("PATH", path)
        .env("RKT_STAGE1_ENTERCMD", stage1.entrypoint("enter")?)
        .env("RKT_STAGE1_ENTERPID", pod.running_pid()?.to_string())
        .current_dir(pod.path());
    Ok(command)
}

/// An entrypoint that runs words in an app of a running pod (contract section 1.4).
pub fn entering(
    entrypoint: &Path,
    pod: &Pod,
    pid: u32,
    app: &str,
    words: &[impl AsRef<OsStr>],
) -> Command {
    let mut command = Command::new(entrypoint);
    command
        .arg(format!("--pid={pid}"))
        .arg(format!("--appname={app}"))
        .arg("--")
        .args(words)
        .current_dir(pod.path());
    command
}

/// The folders of an app, and of its layers where they are no other app's.
fn folders(dir: &PodDir, name: &str) -> Result<Vec<PathBuf>> {
    let layers = directories::layers_of(dir, name)?;
    let own = [dir.stage2(name), dir.app_info(name)];
    Ok(layers.into_iter().chain(own).collect())
}
