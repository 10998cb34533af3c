//! Network namespaces that have a name: a file below /run/netns, as ip-netns(8) makes them, so that they outlive whoever made
//! them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::statfs;

const FOLDER: &str = "/run/netns";
const CURRENT: &str = "/proc/thread-self/ns/net";

/// The file system of namespaces.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// A network namespace with a name.
pub struct Namespace(PathBuf);

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

impl Namespace {
    /// Makes one. The calling thread is in its own again afterwards.
    ///
    /// # Errors
    /// When it cannot be made.
    ///
    /// # Panics
    /// When the thread cannot go back.
    pub fn create(name: &str) -> Result<Self> {
        let path = path(name);
        let create = || {
            fs::create_dir_all(FOLDER)?;
            File::create_new(&path)?;
            let own = File::open(CURRENT)?;
            unshare(CloneFlags::CLONE_NEWNET)?;
            let named = mount(
                Some(CURRENT),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            );
            go_back(own);
            Ok(named?)
        };
        let created: Result<()> = create();
        let created = created.inspect_err(|_| {
            let _ = fs::remove_file(&path);
        });
        created.with_context(|| format!("make network namespace {}", path.display()))?;
        Ok(Self(path))
    }

    /// The one of this name, if there is one.
    pub fn find(name: &str) -> Option<Self> {
        Some(Self(path(name))).filter(|namespace| namespace.0.exists())
    }

    /// Where it is; none if the name is a file alone: where its maker was killed, or has mounted it where only he sees it.
    pub fn path(&self) -> Option<&Path> {
        let is_namespace = statfs(&self.0).is_ok_and(|found| found.f_type == NSFS_MAGIC);
        Some(&*self.0).filter(|_| is_namespace)
    }

    /// Does `work` in it; the calling thread is in its own again afterwards.
    ///
    /// # Errors
    /// When it cannot be entered, or those of `work`.
    ///
    /// # Panics
    /// When the thread cannot go back.
    pub fn inside<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let context = || format!("enter network namespace {}", self.0.display());
        let own = File::open(CURRENT).with_context(context)?;
        let there = File::open(&self.0).with_context(context)?;
        setns(there, CloneFlags::CLONE_NEWNET).with_context(context)?;
        let done = work();
        go_back(own);
        done
    }

    /// Gives up its name, upon which the last who uses it takes it along.
    ///
    /// # Errors
    /// When the name cannot be deleted.
    pub fn delete(self) -> Result<()> {
        let path = self.0;
        // Not mounted when its maker was killed before.
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        fs::remove_file(&path)
            .with_context(|| format!("delete network namespace {}", path.display()))
    }
}

/// Leaves it for the thread's own. If that failed, what comes next would happen there.
fn go_back(own: File) {
    setns(own, CloneFlags::CLONE_NEWNET).expect("a thread's own namespace is open to it");
}
