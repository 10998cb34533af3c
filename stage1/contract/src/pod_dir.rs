//! Where things lie in a pod directory. The names are rkt's wherever rkt had them.

use std::iter;
use std::path::{Path, PathBuf};

/// Environment variable that carries the number of the descriptor which holds the pod's lock.
pub const LOCK_FD_VARIABLE: &str = "RKT_LOCK_FD";

/// How long a log grows before it becomes the one before, bytes: the record that passes this is its last.
pub const MAX_LOG_BYTES: u64 = 8 << 20;

/// What the files of a root file system are called: the EROFS file at `path`, then those whose data follow it, `path` with a
/// number, as many as there are.
pub fn erofs_files(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let path = path.to_owned();
    let first = path.clone();
    let of_layer = move |number: u32| path.with_extension(format!("erofs.{number}"));
    iter::once(first).chain((1..).map(of_layer))
}

/// Those of [`erofs_files`] that are there.
pub fn present_erofs_files(path: &Path) -> Vec<PathBuf> {
    erofs_files(path).take_while(|file| file.exists()).collect()
}

/// A pod directory, absolute or relative to the working directory.
#[derive(Clone, Debug)]
pub struct PodDir(PathBuf);

/// What the network namespace of the pod `uuid` is called, as ip-netns(8) names them.
pub fn network_namespace(uuid: &str) -> String {
    format!("fairing-{uuid}")
}

impl PodDir {
    /// The pod directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The pod manifest.
    pub fn manifest(&self) -> PathBuf {
        self.0.join("pod")
    }

    /// Root file system of the stage 1.
    pub fn stage1_rootfs(&self) -> PathBuf {
        self.0.join("stage1/rootfs")
    }

    /// Image manifest of an app.
    pub fn app_image_manifest(&self, app: &str) -> PathBuf {
        self.stage2(app).join("manifest")
    }

    /// Root file system of an app, rendered as a directory.
    pub fn app_rootfs(&self, app: &str) -> PathBuf {
        self.stage2(app).join("rootfs")
    }

    /// Root file system of an app as an EROFS file, for a stage 1 that takes one.
    pub fn app_rootfs_erofs(&self, app: &str) -> PathBuf {
        self.stage2(app).join("rootfs.erofs")
    }

    /// The folder of an app in the stage 1 root file system.
    pub fn stage2(&self, app: &str) -> PathBuf {
        self.stage1_rootfs().join("opt/stage2").join(app)
    }

    /// The app's own metadata at stage 0: `manifest`, and for rkt `treeStoreID`.
    pub fn app_info(&self, app: &str) -> PathBuf {
        self.0.join("appsinfo").join(app)
    }

    /// Id under which `overlay/` has the layers of an app's directory.
    pub fn tree_store_id(&self, app: &str) -> PathBuf {
        self.app_info(app).join("treeStoreID")
    }

    /// The folder in which stage 1 reports: the one part of the pod the running machine's process can write.
    pub fn report(&self) -> PathBuf {
        self.stage1_rootfs().join("rkt")
    }

    /// Exit codes of apps.
    pub fn status(&self) -> PathBuf {
        self.report().join("status")
    }

    /// Exit code of an app, decimal.
    pub fn app_status(&self, app: &str) -> PathBuf {
        self.status().join(app)
    }

    /// Exit code of the pod, decimal: an addition of fairing's, which not every stage 1 makes.
    pub fn exit_code(&self) -> PathBuf {
        self.report().join("exit-code")
    }

    /// Logs of the apps.
    pub fn logs(&self) -> PathBuf {
        self.report().join("log")
    }

    /// Symbolic link whose target is `ready` once the apps run.
    pub fn supervisor_status(&self) -> PathBuf {
        self.report().join("supervisor-status")
    }

    /// Pid of the pod's process, decimal and newline.
    pub fn pid(&self) -> PathBuf {
        self.0.join("pid")
    }

    /// The pod's interfaces on networks of the host, a file each, as crate `cni` writes them.
    pub fn networks(&self) -> PathBuf {
        self.0.join("net")
    }

    /// Which addresses the pod has on which networks.
    pub fn network_info(&self) -> PathBuf {
        self.0.join("net-info.json")
    }

    /// What stage 1 keeps of a mutable pod's start for the apps that come later; its format is stage 1's own.
    pub fn runtime_config(&self) -> PathBuf {
        self.0.join("runtime-config")
    }

    /// Path of the pod's cgroup in the tree of version 2, from `/` on, and newline.
    pub fn subcgroup(&self) -> PathBuf {
        self.0.join("subcgroup")
    }

    /// Is there once a pod of stage1-kvm was killed because the host's cap on its memory was reached.
    pub fn out_of_memory(&self) -> PathBuf {
        self.0.join("out-of-memory")
    }

    /// Socket at which the pod's process listens, in a pod of stage1-kvm.
    pub fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }

    /// The writable layers of the pod's apps, a sparse disk.
    pub fn scratch_disk(&self) -> PathBuf {
        self.0.join("scratch.ext4")
    }
}
