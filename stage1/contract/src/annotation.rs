//! Annotations that carry meaning between the stages.

use serde::{Deserialize, Serialize};

/// One annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// ACIdentifier.
    pub name: String,
    /// Any text.
    pub value: String,
}

impl Annotation {
    /// `name` = `value`.
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            value: value.into(),
        }
    }
}

/// The value of the annotation called `name`; of several, the last.
pub fn find<'a>(annotations: &'a [Annotation], name: &str) -> Option<&'a str> {
    annotations
        .iter()
        .rev()
        .find(|annotation| annotation.name == name)
        .map(|annotation| annotation.value.as_str())
}

/// Stage 1 image: the interface version, decimal; absent = 1.
pub const INTERFACE_VERSION: &str = "coreos.com/rkt/stage1/interface-version";

/// Stage 1 image: prefix of the annotations that name an entrypoint's path inside the stage 1 root file system.
pub const ENTRYPOINT_PREFIX: &str = "coreos.com/rkt/stage1/";

/// Stage 1 image: the forms in which it takes an app's root file system, of `erofs` and `directory`, with commas between
/// them; absent = `directory`, which is all that rkt knew.
pub const STAGE1_ROOTFS: &str = "fairing/stage1/rootfs";

/// Stage 1 image: `true` if it writes nothing into its root file system but under `rkt/`, so that its files may be
/// hard links shared by all pods.
pub const STAGE1_SHARED_FILES: &str = "fairing/stage1/shared-files";

/// Stage 1 image: path of the entrypoint that tells whether this host can run pods.
pub const STAGE1_PROBE: &str = "fairing/stage1/probe";

/// Pod: `true` if apps may come and go while it runs; rkt sets it on every pod that it generates.
pub const POD_MUTABLE: &str = "coreos.com/rkt/stage1/mutable";

/// Pod: size of the scratch disk, an appc quantity of bytes.
pub const POD_SCRATCH_SIZE: &str = "fairing/scratch-size";

/// Pod: `true` puts writable layers on a tmpfs instead of the scratch disk.
pub const POD_TMPFS_ROOT: &str = "fairing/tmpfs-root";

/// Pod: seconds, decimal with fraction, after which the pod is ended with exit code 124.
pub const POD_TIMEOUT: &str = "fairing/timeout";

/// Pod: seconds, decimal with fraction, between the signal that asks the apps to end and their death; absent = 10.
pub const POD_STOP_TIMEOUT: &str = "fairing/stop-timeout";

/// Pod: `true` makes stage 1 print where the time of the start went, on stderr, one `name=microseconds` a line.
pub const POD_TIMINGS: &str = "fairing/timings";

/// Pod: the uids that pods may run under, `FIRST:COUNT`; absent = [`crate::UidRange`]'s default.
pub const POD_UIDS: &str = "fairing/pod-uids";

/// Pod, or an app for volumes of its own, with the name of a host volume after it: how long the machine trusts what it knows
/// of the volume's files, `auto`, `always` or `none`; absent = `auto`.
pub const VOLUME_CACHE: &str = "fairing/cache/";

/// App or its image: the signal that asks the app to end, by name or number; absent = `SIGTERM`.
pub const STOP_SIGNAL: &str = "appc.io/docker/stopsignal";

/// App or its image: how docker would check the app's health, a JSON object; no stage runs it.
pub const HEALTH_CHECK: &str = "appc.io/docker/healthcheck";

/// Stage 1 image: path of the entrypoint that runs a program of the machine's own in an app, called as `enter` is.
pub const STAGE1_SERVE: &str = "fairing/stage1/serve";

/// App: `true` if its `exec` is a program of the machine's own, for which the app's files are left as they are; a stage 1 that has
/// [`STAGE1_SERVE`] knows it. The pod's scratch disk is there already: another's, which is to be read.
pub const APP_BUILT_IN: &str = "fairing/built-in";

/// App: most processes and threads, decimal.
pub const APP_PROCESSES: &str = "fairing/pids-limit";

/// App: limits of each of its processes, as [`crate::ResourceLimit`] spells them, with commas between them.
pub const APP_RESOURCE_LIMITS: &str = "fairing/ulimits";

/// App: where stdin comes from: `stream`, `tty`, `interactive`, `null`.
pub const APP_STDIN: &str = "coreos.com/rkt/stage2/stdin";

/// App: where stdout goes: `stream`, `tty`, `interactive`, `null`, `log`.
pub const APP_STDOUT: &str = "coreos.com/rkt/stage2/stdout";

/// App: where stderr goes, as [`APP_STDOUT`].
pub const APP_STDERR: &str = "coreos.com/rkt/stage2/stderr";
