//! A pod of three apps, as people run them: PostgreSQL on a volume of the host, a client, and a logger; through run, enter,
//! logs, stop and gc. What it has committed outlives a `kill -9` of the pod.

use std::path::Path;
use std::process::Command;

use tests::mounted::Mounted;
use tests::running::{Running, signal};
use tests::{fairing_with_runtimes, finish, proved, temporary, test_image};

/// Becomes the server of the cluster on the volume, as the database's own user.
const DATABASE: &str = "install -d -o postgres -g postgres /shared/log; \
    echo host all all 127.0.0.1/32 trust >/shared/log/hba; \
    exec setpriv --reuid=postgres --regid=postgres --clear-groups $(echo /usr/lib/postgresql/*/bin/postgres) \
        -D /data -c config_file=$(echo /etc/postgresql/*/main/postgresql.conf) -c data_directory=/data \
        -c hba_file=/shared/log/hba -c unix_socket_directories=/shared/log -c external_pid_file= -c ssl=off \
        -c shared_buffers=16MB 2>>/shared/log/server";

/// Counts itself over the pod's loopback, and stays.
const CLIENT: &str = "sql() { psql -h 127.0.0.1 -U postgres -qtAc \"$1\"; }; \
    until sql 'create table if not exists seen (n int)' 2>/shared/waiting; do sleep 1; done; \
    sql 'insert into seen values (1)'; echo rows $(sql 'select count(*) from seen'); exec sleep 100000";

/// Says what the server writes to the volume that they share.
const LOGGER: &str =
    "until [ -e /shared/log/server ]; do sleep 1; done; exec tail -n +1 -f /shared/log/server";

/// Restores the cluster that Debian's package has made, on the host: emulated, its thousand files take a pod minutes.
#[track_caller]
fn restore_cluster(folder: &Path) {
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(test_image("runtimes.tar"));
    tar.args([
        "--numeric-owner",
        "--strip-components=5",
        "--wildcards",
        "-C",
    ]);
    tar.arg(folder).arg("./var/lib/postgresql/*/main");
    finish(&mut tar).expect_code(0);
}

/// A pod in the background whose first app keeps its data in `data`.
struct Database(String);

impl Database {
    #[track_caller]
    fn start(data: &Path) -> Self {
        let mut run = fairing_with_runtimes();
        run.args(["run", "-d", "--volume=shared,kind=empty"]);
        run.arg(format!("--volume=data,kind=host,source={}", data.display()));
        let apps = [
            ("database", DATABASE, "300Mi"),
            ("client", CLIENT, "64Mi"),
            ("logger", LOGGER, "64Mi"),
        ];
        for (index, (name, script, memory)) in apps.into_iter().enumerate() {
            run.args((index > 0).then_some("---")).arg("runtimes");
            run.arg(format!("--name={name}"))
                .arg(format!("--memory={memory}"));
            run.arg("--mount=volume=shared,target=/shared");
            if index == 0 {
                // By SIGINT the server does not wait for its clients.
                run.args(["--mount=volume=data,target=/data", "--stop-signal=INT"]);
            }
            run.args(["--exec=/bin/sh", "--", "-c", &proved(script)]);
        }
        Self(finish(&mut run).expect_code(0).out().trim().to_owned())
    }

    fn command(&self, words: &[&str], more: &[&str]) -> Command {
        let mut command = fairing_with_runtimes();
        command.args(words).arg(&self.0).args(more);
        command
    }

    /// Waits for the line of `app` that contains `text`; gives it.
    #[track_caller]
    fn wait_for(&self, app: &str, text: &str) -> String {
        let app = format!("--app={app}");
        let mut follower = Running::start(&mut self.command(&["logs", "-f", &app], &[]));
        let line = loop {
            let line = follower.line();
            if line.contains(text) {
                break line;
            }
        };
        follower.signal("TERM");
        follower.finish();
        line
    }

    /// What the database answers to a client that is entered.
    #[track_caller]
    fn ask(&self, sql: &str) -> String {
        let ask = ["psql", "-h", "127.0.0.1", "-U", "postgres", "-qtAc", sql];
        finish(&mut self.command(&["enter", "--app=client"], &ask))
            .expect_code(0)
            .out()
    }

    #[track_caller]
    fn process(&self) -> u32 {
        let status = finish(&mut self.command(&["status"], &[])).expect_code(0);
        status.value("pid").parse().expect("a number")
    }
}

#[test]
fn database_with_client_and_logger_keeps_what_it_committed_when_its_pod_is_killed() {
    let folder = temporary("fairing-database-");
    let disk = Mounted::ext4(folder.path(), "disk");
    let data = disk.path().join("main");
    restore_cluster(disk.path());

    let first = Database::start(&data);
    assert_eq!(first.wait_for("client", "rows"), "rows 1");
    first.wait_for("logger", "ready to accept connections");
    first.ask("insert into seen select 2 from generate_series(1, 1000)");
    signal(first.process(), "KILL");
    let state = finish(&mut first.command(&["status", "--wait"], &[])).expect_code(0);
    assert_eq!(state.value("state"), "exited");

    let second = Database::start(&data);
    assert_eq!(second.wait_for("client", "rows"), "rows 1002");
    second.wait_for("logger", "database system was not properly shut down");
    finish(&mut second.command(&["stop"], &[])).expect_code(0);
    let state = finish(&mut second.command(&["status"], &[])).expect_code(0);
    for (app, code) in [("database", "0"), ("client", "143"), ("logger", "143")] {
        assert_eq!(state.value(&format!("app-{app}")), code);
    }
    finish(fairing_with_runtimes().args(["gc", "--grace-period=0s"])).expect_code(0);
    let left = finish(fairing_with_runtimes().args(["list", "--no-legend"])).expect_code(0);
    assert_eq!(left.out(), "");
}
