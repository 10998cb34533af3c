//! A stage 0 that does what rkt 1.30 does, and nothing else: trees in a store, overlays over them for each pod, the lock, the
//! command lines, descriptors and environments of the contract.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};

use crate::{checkout, proved, succeed, temporary, test_image};

/// Ids of the trees of stage 1 and of the app's image.
const STAGE1: &str = "deps-sha512-1111111111111111111111111111111111111111111111111111111111111111";
const APP: &str = "deps-sha512-2222222222222222222222222222222222222222222222222222222222222222";

/// The one app.
pub const NAME: &str = "web";

/// The data directory, on a file system that can hold overlays.
pub struct Rkt {
    data: tempfile::TempDir,
}

/// A pod in `run`, which nobody has started yet.
pub struct Pod<'a> {
    rkt: &'a Rkt,
    /// Lower-case dashed.
    pub uuid: &'static str,
    lock: Option<File>,
}

impl Rkt {
    /// A store with our stage 1 and busybox.
    pub fn with_our_stage1() -> Self {
        let data = temporary("fairing-rkt-");
        succeed(
            Command::new("mount")
                .args(["-t", "tmpfs", "tmpfs"])
                .arg(data.path()),
        );
        let rkt = Self { data };
        for (id, tree) in [
            (STAGE1, checkout().join("target/stage1-kvm/rootfs")),
            (APP, test_image("rootfs")),
        ] {
            let folder = rkt.path("cas/tree").join(id);
            fs::create_dir_all(&folder).expect("a folder of the store");
            let mut copy = Command::new("cp");
            copy.args(["-a", "--sparse=always"]).arg(tree);
            succeed(copy.arg(folder.join("rootfs")));
        }
        rkt
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// The path of one of stage 1's entrypoints in its root, by its manifest.
    fn entrypoint(name: &str) -> String {
        let path = checkout().join("target/stage1-kvm/manifest");
        let manifest = fs::read(path).expect("the stage 1's manifest");
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        let annotations = manifest["annotations"].as_array().expect("annotations");
        let name = format!("coreos.com/rkt/stage1/{name}");
        let is_it = |annotation: &&Value| annotation["name"] == *name;
        let found = annotations.iter().find(is_it).expect("the entrypoint");
        found["value"].as_str().expect("a path")[1..].to_owned()
    }

    /// Lays out a pod whose app runs `script`.
    pub fn pod(&self, uuid: &'static str, script: &str) -> Pod<'_> {
        let pod = self.empty(uuid, false);
        pod.place(NAME, script);
        pod
    }

    /// Lays out a pod of an app that is as `differs` says.
    pub fn pod_of(&self, uuid: &'static str, differs: &Value) -> Pod<'_> {
        let pod = self.empty(uuid, false);
        pod.place_app(NAME, differs);
        pod
    }

    /// Lays out a pod without apps: they are placed in it before it runs, or, in a mutable one, while it does.
    pub fn empty(&self, uuid: &'static str, mutable: bool) -> Pod<'_> {
        let pod = Pod {
            rkt: self,
            uuid,
            lock: None,
        };
        for name in ["stage1/rootfs", "overlay"] {
            folder(&pod.path(name));
        }
        let manifest = json!({"acVersion": "1.30.0+git", "acKind": "PodManifest", "apps": null,
            "volumes": null, "isolators": null, "annotations":
                [{"name": "coreos.com/rkt/stage1/mutable", "value": mutable.to_string()}], "ports": []});
        pod.write("pod", &manifest.to_string());
        pod.write("pod-created", "");
        pod.write("overlay-prepared", "");
        pod.write("stage1TreeStoreID", STAGE1);
        let of_stage1 = fs::read_to_string(checkout().join("target/stage1-kvm/manifest"));
        pod.write(
            "stage1/manifest",
            &of_stage1.expect("the stage 1's manifest"),
        );
        pod.mount(STAGE1, "upper", "stage1/rootfs");
        // rkt touches it, and gives up where there is none.
        succeed(
            Command::new("touch")
                .arg("-c")
                .arg(pod.path("stage1/rootfs/rkt/status")),
        );
        assert!(pod.path("stage1/rootfs/rkt/status").is_dir());
        pod
    }
}

fn folder(path: &Path) {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o750);
    builder.create(path).expect("a folder of the pod");
}

impl Drop for Rkt {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .args(["-R", "-l"])
            .arg(self.data.path())
            .status();
    }
}

impl Pod<'_> {
    /// Changes the pod manifest.
    pub fn change_manifest(&self, change: impl FnOnce(&mut Value)) {
        let manifest = fs::read(self.path("pod")).expect("the pod manifest");
        let mut manifest = serde_json::from_slice(&manifest).expect("JSON");
        change(&mut manifest);
        self.write("pod", &manifest.to_string());
    }

    /// Writes a file of the pod.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file of the pod");
    }

    /// Places an app that runs `script` in the pod.
    pub fn place(&self, name: &str, script: &str) {
        self.place_app(name, &json!({"exec": ["/bin/sh", "-c", proved(script)]}));
    }

    /// Places an app in the pod: its files, its root, and its part of the pod manifest, in which `differs` is as it says.
    pub fn place_app(&self, name: &str, differs: &Value) {
        folder(&self.path(&format!("appsinfo/{name}")));
        let mut app = json!({"exec": null, "user": "0", "group": "0", "workingDirectory": "/",
            "environment": [{"name": "FLAVOUR", "value": "aci"}], "mountPoints": null, "ports": null, "isolators": null,
            "userAnnotations": null});
        for (key, value) in differs.as_object().expect("a part of an app") {
            app[key] = value.clone();
        }
        let image = json!({"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/web", "app": app});
        let id = format!("sha512-{}", "2".repeat(64));
        let app = json!({"name": name, "image": {"id": id, "name": "example.com/web", "labels": []}, "app": app,
            "mounts": null, "annotations": null});
        self.change_manifest(|manifest| match manifest["apps"].as_array_mut() {
            Some(apps) => apps.push(app),
            None => manifest["apps"] = json!([app]),
        });
        self.write(&format!("appsinfo/{name}/manifest"), &image.to_string());
        self.write(&format!("appsinfo/{name}/treeStoreID"), APP);
        let place = format!("stage1/rootfs/opt/stage2/{name}");
        folder(&self.path(&place).join("rootfs"));
        self.write(&format!("{place}/manifest"), &image.to_string());
        self.mount(APP, &format!("upper/{name}"), &format!("{place}/rootfs"));
    }

    /// A "crossing" entrypoint for an app: `app/add`, `app/start`, `app/stop` or `app/rm`.
    pub fn cross(&self, entrypoint: &str, app: &str) -> Command {
        let root = self.path("stage1/rootfs");
        let pid = fs::read_to_string(self.path("pid")).expect("the pid");
        let mut cross = Command::new(root.join(Rkt::entrypoint(entrypoint)));
        cross
            .env_clear()
            .env("RKT_STAGE1_ENTERCMD", root.join(Rkt::entrypoint("enter")))
            .env("RKT_STAGE1_ENTERPID", pid.trim())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .arg("--debug=false");
        if entrypoint == "app/add" {
            cross.arg(format!("--uuid={}", self.uuid));
        }
        cross.arg(format!("--app={app}"));
        cross.current_dir(self.path("")).stdin(Stdio::null());
        cross
    }

    /// A path below the pod's directory, which is in `run` until `gc` moves it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.rkt.path("pods/run").join(self.uuid).join(name)
    }

    /// What stage 1 wrote into its own root, on disk.
    pub fn upper_of_stage1(&self) -> PathBuf {
        self.path("overlay").join(STAGE1).join("upper")
    }

    /// What an app wrote into its root, on disk.
    pub fn upper_of_app(&self, name: &str) -> PathBuf {
        self.path("overlay").join(APP).join("upper").join(name)
    }

    fn mount(&self, tree: &str, upper: &str, at: &str) {
        let lower = self.rkt.path("cas/tree").join(tree).join("rootfs");
        let layers = self.path("overlay").join(tree);
        let (upper, work) = (
            layers.join(upper),
            layers.join(upper.replace("upper", "work")),
        );
        for folder in [&upper, &work] {
            fs::create_dir_all(folder).expect("a layer's folder");
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]);
        succeed(mount.arg(self.path(at)));
    }

    /// `run` with these flags after those that are always there.
    pub fn run(&mut self, flags: &[&str]) -> Command {
        let always = ["--net=default", "--local-config=/etc/rkt"];
        self.execute(&[&always, flags, &[self.uuid]].concat())
    }

    /// `run` with these arguments and no others; takes the lock, which the process then alone holds.
    pub fn execute(&mut self, arguments: &[&str]) -> Command {
        let lock = File::open(self.path("")).expect("the pod's directory");
        lock.lock().expect("the pod's lock");
        fcntl(&lock, FcntlArg::F_SETFD(FdFlag::empty())).expect("it can be inherited");
        let mut run = Command::new(self.path("stage1/rootfs").join(Rkt::entrypoint("run")));
        run.args(arguments)
            .current_dir(self.path(""))
            .env("RKT_LOCK_FD", lock.as_raw_fd().to_string())
            .env("RKT_SELINUX_CONTEXT", "")
            .env("RKT_SELINUX_MOUNT_CONTEXT", "")
            .env("CALLERS_OWN", "secret")
            .stdin(Stdio::null());
        self.lock = Some(lock);
        run
    }

    /// As rkt, which has become the process, holds it no longer.
    pub fn let_go_of_lock(&mut self) {
        self.lock = None;
    }

    /// Whether somebody holds the lock.
    pub fn is_locked(&self) -> bool {
        let lock = File::open(self.path("")).expect("the pod's directory");
        lock.try_lock_shared().is_err()
    }

    /// What the pod's process, which is `pid`, has open: links as the kernel shows them.
    pub fn descriptors(pid: u32) -> Vec<PathBuf> {
        let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
        let links = folder.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.collect()
    }

    /// `enter`, executed from the tree in the store.
    pub fn enter(&self, command: &[&str]) -> Command {
        let pid = fs::read_to_string(self.path("pid")).expect("the pid");
        let tree = self.rkt.path("cas/tree").join(STAGE1).join("rootfs");
        let mut enter = Command::new(tree.join(Rkt::entrypoint("enter")));
        enter
            .arg(format!("--pid={}", pid.trim()))
            .arg(format!("--appname={NAME}"))
            .arg("--")
            .args(command)
            .current_dir(self.path(""))
            .stdin(Stdio::null());
        enter
    }

    /// `stop`.
    pub fn stop(&self, flags: &[&str]) -> Command {
        let mut stop = Command::new(self.path("stage1/rootfs").join(Rkt::entrypoint("stop")));
        stop.args(flags)
            .arg(self.uuid)
            .current_dir(self.path(""))
            .stdin(Stdio::null());
        stop
    }

    /// Moves the pod to `exited-garbage`, as rkt does once it has the lock; gives `gc`, which may be called again.
    pub fn garbage(&self) -> impl Fn() -> Command {
        assert!(!self.is_locked(), "the pod still runs");
        let garbage = self.rkt.path("pods/exited-garbage");
        fs::create_dir_all(&garbage).expect("a folder");
        let (pod, uuid) = (garbage.join(self.uuid), self.uuid);
        fs::rename(self.path(""), &pod).expect("the pod is moved with what is mounted below it");
        move || {
            let mut gc = Command::new(pod.join("stage1/rootfs").join(Rkt::entrypoint("gc")));
            gc.args(["--debug", "--local-config", "/etc/rkt", uuid])
                .current_dir(&pod)
                .stdin(Stdio::null());
            gc
        }
    }
}
