//! systemd as first process of a container of namespaces, with a test's services and nothing else to do. Its cgroups are those
//! that it makes on any host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::home::USER;
use crate::running::child_of;
use crate::{Finished, finish, temporary, wait_until};

/// The cgroup that is the container's root.
const ROOT: &str = "/sys/fs/cgroup/fairing-systemd";

/// Becomes systemd in cgroup $2, where it is alone; it finds its units in folder $1, and user $3. Generators would make units of
/// the machine's.
const CONTAINER: &str = r#"
mkdir "$2"
{ cat /etc/passwd; echo "user:x:$3:$3::/:/bin/sh"; } >"$1/passwd"
exec unshare --mount --pid --uts --fork --kill-child sh -euc '
    echo 0 >"$1/cgroup.procs"
    exec unshare --cgroup sh -euc "$2" "$0"
' "$1" "$2" '
    mount -t proc proc /proc
    umount -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /usr/lib/systemd/system-generators
    mount --bind "$0/passwd" /etc/passwd
    mkdir -p /run/systemd/system
    cp "$0"/*.service "$0"/*.target /run/systemd/system
    exec env container=fairing /lib/systemd/systemd --unit=test.target --log-target=null
'
"#;

/// A service, by its name.
pub struct Service<'a> {
    /// Of its unit, without `.service`.
    pub name: &'a str,
    /// Lines of its unit.
    pub settings: &'a str,
    /// What it runs.
    pub command: Command,
}

/// systemd, running.
pub struct Systemd {
    container: Child,
    /// The services' outputs.
    folder: tempfile::TempDir,
}

impl Systemd {
    /// Starts these services.
    #[track_caller]
    pub fn start(services: &[Service]) -> Self {
        let folder = temporary("fairing-systemd-");
        let mut target = String::from("[Unit]\nDefaultDependencies=no\n");
        for Service { name, .. } in services {
            target += &format!("Wants={name}.service\n");
        }
        write(&folder.path().join("test.target"), &target);
        for service in services {
            let out = folder.path().join(service.name);
            let out = out.display();
            let words = std::iter::once(service.command.get_program());
            let words = words.chain(service.command.get_args());
            let words: Vec<_> = words.map(|word| quoted(&word.to_string_lossy())).collect();
            let unit = format!(
                "[Unit]\nDefaultDependencies=no\n[Service]\nType=exec\nStandardOutput=file:{out}.out\n\
                 StandardError=file:{out}.err\nExecStart={}\n{}\n",
                words.join(" "),
                service.settings
            );
            write(&out_path(folder.path(), service.name, "service"), &unit);
        }
        let mut container = Command::new("sh");
        container.args(["-euc", CONTAINER, "sh"]).arg(folder.path());
        let container = container.args([ROOT, USER]).stdin(Stdio::null()).spawn();
        Self {
            container: container.expect("sh starts"),
            folder,
        }
    }

    /// Waits until the service has said this.
    #[track_caller]
    pub fn wait_until_said(&self, service: &str, word: &str) {
        let said = |kind| fs::read_to_string(out_path(self.folder.path(), service, kind));
        wait_until(service, || {
            let told = said("err").unwrap_or_default();
            assert_eq!(told, "", "{service}");
            said("out").is_ok_and(|said| said.contains(word))
        });
    }

    /// Runs `command` in the container.
    #[track_caller]
    pub fn run(&self, command: &Command) -> Finished {
        let first = child_of(self.container.id()).to_string();
        let mut inside = Command::new("nsenter");
        inside.args(["--mount", "--pid", "--cgroup", "--target", &first, "--"]);
        inside.arg(command.get_program()).args(command.get_args());
        finish(inside.stdin(Stdio::null()))
    }

    /// The folder of a cgroup of the container's.
    pub fn cgroup(&self, path: &str) -> PathBuf {
        Path::new(ROOT).join(path.trim_start_matches('/'))
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // And with the first process all that are in its namespace.
        let _ = self.container.kill();
        let _ = self.container.wait();
        let mut remove = Command::new("find");
        remove.args([ROOT, "-depth", "-type", "d", "-delete"]);
        let mut is_removed = || remove.status().is_ok_and(|status| status.success());
        if thread::panicking() {
            is_removed();
        } else {
            wait_until("the container's processes are gone", is_removed);
        }
    }
}

fn out_path(folder: &Path, service: &str, kind: &str) -> PathBuf {
    folder.join(format!("{service}.{kind}"))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("room for a unit");
}

/// As systemd reads a word of a command line: systemd.service(5).
fn quoted(word: &str) -> String {
    let word = word.replace('\\', r"\\").replace('"', "\\\"");
    format!("\"{}\"", word.replace('%', "%%").replace('$', "$$"))
}
