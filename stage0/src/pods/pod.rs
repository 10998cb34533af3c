//! One pod: its directory, its lock, its moves from folder to folder.
//!
//! The lock is a flock on the directory itself; whoever holds it exclusively is at work on the pod, and in the folder
//! `run` that is its stage 1. Only the holder moves the directory.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use contract::{PodDir, PodManifest};
use uuid::Uuid;

use super::{Folder, State};

/// How long others may keep looking at a pod that is to be locked.
const LOOKS: Duration = Duration::from_secs(10);

/// A pod as it was found; another process may move it at any time unless its [`Lock`] is held.
#[derive(Clone, Debug)]
pub struct Pod {
    pods: PathBuf,
    folder: Folder,
    uuid: String,
    dir: PodDir,
}

/// The exclusive lock of a pod, held until dropped.
#[derive(Debug)]
pub struct Lock(File);

/// A look at a pod that nobody works on: until it is dropped, nobody will.
#[derive(Debug)]
pub struct Look(#[expect(dead_code, reason = "held for its lock")] File);

impl Lock {
    /// The open directory that holds the lock.
    pub fn directory(&self) -> &File {
        &self.0
    }
}

impl Pod {
    pub(super) fn at(pods: &Path, folder: Folder, uuid: Uuid) -> Self {
        let uuid = uuid.to_string();
        Self {
            dir: PodDir::new(pods.join(folder.name()).join(&uuid)),
            pods: pods.to_owned(),
            folder,
            uuid,
        }
    }

    /// Lower-case dashed.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Where its directory was seen.
    pub fn folder(&self) -> Folder {
        self.folder
    }

    /// Its files.
    pub fn dir(&self) -> &PodDir {
        &self.dir
    }

    /// Its directory, absolute.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of all pods.
    pub(super) fn pods(&self) -> &Path {
        &self.pods
    }

    /// The same pod as seen in another folder, where it need not be.
    pub fn seen_in(&self, folder: Folder) -> Self {
        Self {
            dir: PodDir::new(self.pods.join(folder.name()).join(&self.uuid)),
            folder,
            ..self.clone()
        }
    }

    /// Whether its directory is still where it was seen.
    pub fn exists(&self) -> bool {
        fs::symlink_metadata(self.path()).is_ok()
    }

    /// What it is doing.
    ///
    /// # Errors
    /// If the directory has gone.
    pub fn state(&self) -> Result<State> {
        Ok(State::of(self.folder, contract::is_running(self.path())?))
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("open pod {}", self.path().display()))
    }

    /// The directory; `None` if it has gone or moved.
    fn open_if_there(&self) -> Result<Option<File>> {
        match self.open() {
            Ok(directory) => Ok(Some(directory)),
            Err(_) if !self.exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the open directory still is the one at the pod's path: it may have been moved before it was locked.
    fn is_at_its_place(&self, directory: &File) -> Result<bool> {
        let held = directory.metadata()?;
        Ok(fs::symlink_metadata(self.path())
            .is_ok_and(|seen| (seen.dev(), seen.ino()) == (held.dev(), held.ino())))
    }

    /// The pod's lock, or `None` if somebody holds it or the pod has gone or moved.
    ///
    /// # Errors
    /// If the kernel refuses for another reason.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        let Some(directory) = self.open_if_there()? else {
            return Ok(None);
        };
        match directory.try_lock() {
            Ok(()) if self.is_at_its_place(&directory)? => Ok(Some(Lock(directory))),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("lock pod {}", self.path().display()))
            }
        }
    }

    /// The lock of a pod that nobody works on, waiting for those who only look at it.
    ///
    /// # Errors
    /// If the pod is running, another command is at work on it, or it has moved meanwhile.
    pub fn lock_idle(&self) -> Result<Lock> {
        let directory = self.open()?;
        let context = || format!("lock pod {}", self.path().display());
        let begun = Instant::now();
        // Blocking would not do: of two that wait for a look to end, the second would wait for the end of the first.
        loop {
            match directory.try_lock() {
                Ok(()) if self.is_at_its_place(&directory)? => return Ok(Lock(directory)),
                Ok(()) => bail!("another command has just taken pod {}", self.uuid),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error).with_context(context),
            }
            // Shared, a lock is another's look, which takes microseconds but where files are read out of the pod.
            match directory.try_lock_shared() {
                Ok(()) if begun.elapsed() < LOOKS => {
                    // Of two who wait, neither is to take the other for one who looks.
                    directory.unlock().with_context(context)?;
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                Ok(()) => bail!(
                    "others are reading pod {}; try again when they are done",
                    self.uuid
                ),
                Err(TryLockError::WouldBlock) => bail!("pod {} is {}", self.uuid, self.held()),
                Err(TryLockError::Error(error)) => return Err(error).with_context(context),
            }
        }
    }

    /// What a pod is doing whose lock somebody holds.
    fn held(&self) -> String {
        match self.folder {
            Folder::Prepared => "just being started or removed by another command".to_owned(),
            folder => State::of(folder, true).to_string(),
        }
    }

    /// The lock once nobody holds it any more, or `None` if the pod has gone or moved until then.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn lock_when_unlocked(&self) -> Result<Option<Lock>> {
        let Some(directory) = self.open_if_there()? else {
            return Ok(None);
        };
        directory
            .lock()
            .with_context(|| format!("lock pod {}", self.path().display()))?;
        Ok(self.is_at_its_place(&directory)?.then_some(Lock(directory)))
    }

    /// Returns when nobody holds the lock any more: for a running pod, when it has exited.
    ///
    /// # Errors
    /// If the directory has gone.
    pub fn wait_unlocked(&self) -> Result<Look> {
        let directory = self.open()?;
        directory
            .lock_shared()
            .with_context(|| format!("wait for pod {}", self.uuid))?;
        Ok(Look(directory))
    }

    /// Fails unless the pod runs.
    ///
    /// # Errors
    /// What it is doing instead.
    pub fn expect_running(&self) -> Result<()> {
        let state = self.state()?;
        if state != State::Running {
            bail!("pod {} is not running but {state}", self.uuid);
        }
        Ok(())
    }

    /// Moves the directory to `folder`, durably; the pod is in its new state when this returns.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn move_to(&mut self, folder: Folder, _held: &Lock) -> Result<()> {
        let parent = self.pods.join(folder.name());
        let target = parent.join(&self.uuid);
        fs::rename(self.path(), &target).with_context(|| {
            format!("move pod {} to {}", self.path().display(), target.display())
        })?;
        self.folder = folder;
        self.dir = PodDir::new(target);
        File::open(&parent)
            .and_then(|parent| parent.sync_all())
            .with_context(|| format!("sync directory {}", parent.display()))
    }

    /// The pod manifest.
    ///
    /// # Errors
    /// If it is missing or malformed.
    pub fn manifest(&self) -> Result<PodManifest> {
        let path = self.dir.manifest();
        let text =
            fs::read(&path).with_context(|| format!("read pod manifest {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("read pod manifest {}", path.display()))
    }

    /// The app of this name, or, without one, the only app of the pod; `choice` is what names one.
    ///
    /// # Errors
    /// If the pod has several, or none.
    pub fn app_or_only(&self, name: Option<&str>, choice: &str) -> Result<String> {
        if let Some(name) = name {
            return Ok(name.to_owned());
        }
        let apps = self.manifest()?.apps;
        let names: Vec<_> = apps.iter().map(|app| app.name.as_str()).collect();
        match names[..] {
            [only] => Ok(only.to_owned()),
            [] => bail!("pod {} has no apps", self.uuid),
            _ => bail!(
                "pod {} has the apps {}; choose one by {choice}",
                self.uuid,
                names.join(", ")
            ),
        }
    }

    /// The pid of the pod's process: that of `pid`, or the only child of that of `ppid`; `None` before stage 1 wrote it.
    pub fn pid(&self) -> Option<u32> {
        let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
        number(self.dir.pid()).or_else(|| {
            let parent = number(self.path().join("ppid"))?;
            let children =
                fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
            let mut children = children.split_whitespace();
            let only = children.next()?.parse().ok()?;
            children.next().is_none().then_some(only)
        })
    }

    /// The pid of the pod's process, which runs.
    ///
    /// # Errors
    /// What the pod is doing instead.
    pub fn running_pid(&self) -> Result<u32> {
        self.expect_running()?;
        self.pid()
            .with_context(|| format!("pod {} is still starting", self.uuid))
    }

    /// When the directory was moved to its folder: a rename changes its ctime.
    pub fn moved(&self) -> Option<SystemTime> {
        let seconds = fs::metadata(self.path()).ok()?.ctime();
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().ok()?))
    }

    /// When the pod was made.
    pub fn created(&self) -> Option<SystemTime> {
        modified(&self.path().join("pod-created"))
    }

    /// When stage 1 wrote its pid.
    pub fn started(&self) -> Option<SystemTime> {
        modified(&self.dir.pid()).or_else(|| modified(&self.path().join("ppid")))
    }
}

/// Time of the last change of a file's content.
pub(super) fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}
