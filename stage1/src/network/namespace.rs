//! The pod's network namespace: a file below /run/netns, as ip-netns(8) makes them, so that it outlives the pod's process until
//! the plugins have taken down what they made in it.

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

fn path(uuid: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("fairing-{uuid}"))
}

impl Namespace {
    /// Makes the pod's. The calling thread is in its own again afterwards.
    pub fn create(uuid: &str) -> Result<Self> {
        let path = path(uuid);
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

    /// The pod's, if it has a name.
    pub fn find(uuid: &str) -> Option<Self> {
        Some(Self(path(uuid))).filter(|namespace| namespace.0.exists())
    }

    /// Where it is; none if the name is a file alone: where its maker was killed, or has mounted it where only he sees it.
    pub fn path(&self) -> Option<&Path> {
        let is_namespace = statfs(&self.0).is_ok_and(|found| found.f_type == NSFS_MAGIC);
        Some(&*self.0).filter(|_| is_namespace)
    }

    /// Does `work` in it; the calling thread is in its own again afterwards.
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
    pub fn delete(self) -> Result<()> {
        let path = self.0;
        // Not mounted when its maker was killed before.
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        fs::remove_file(&path)
            .with_context(|| format!("delete network namespace {}", path.display()))
    }
}

/// Leaves a pod's namespace for the thread's own. If that failed, what comes next would happen there.
fn go_back(own: File) {
    setns(own, CloneFlags::CLONE_NEWNET).expect("a thread's own namespace is open to it");
}
