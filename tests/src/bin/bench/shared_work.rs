//! What is done to shared folders while the clock runs: `git status` in a large tree, and transactions of a database. The same
//! program does it on the host, in pods and in the peer's machine, each with Debian as its root.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::counted::now_ns;

const PAUSE: Duration = Duration::from_secs(2);

/// Transactions that are measured; a tenth of them goes before.
const TRANSACTIONS: u64 = 200;

/// The word for the large tree, and its name.
pub const LARGE: &str = "large";

/// Where PostgreSQL's sockets are.
const SOCKETS: &str = "/tmp";

/// What was measured, ns of the clock.
#[derive(Debug, Serialize, Deserialize)]
pub struct Worked {
    /// A whole `git status`, the third in a row.
    pub git_status: u64,
    /// The next one, after a pause that is longer than `cache=auto` trusts anything.
    pub git_status_later: u64,
    /// One transaction of pgbench.
    pub transaction: u64,
    /// As `git_status`, of the large tree, where it was asked for.
    pub git_status_large: Option<u64>,
}

impl Worked {
    /// Each figure with its name.
    pub fn named(&self) -> [(&'static str, Option<u64>); 4] {
        [
            ("git status", Some(self.git_status)),
            ("after a pause", Some(self.git_status_later)),
            ("a transaction", Some(self.transaction)),
            ("of 50,000 files", self.git_status_large),
        ]
    }
}

/// Does all of it in `folder`, which holds `tree`, `main` and `large`; the last is worked on if it is `asked` for.
pub fn run(folder: &str, asked: &str) -> Result<Worked> {
    let folder = Path::new(folder);
    let tree = folder.join("tree");
    Ok(Worked {
        git_status: warm_git_status(&tree)?,
        git_status_later: {
            thread::sleep(PAUSE);
            git_status(&tree).context("git status after a pause")?
        },
        transaction: transaction(&folder.join("main")).context("pgbench")?,
        git_status_large: match asked {
            LARGE => Some(warm_git_status(&folder.join(LARGE))?),
            _ => None,
        },
    })
}

/// The third in a row.
fn warm_git_status(tree: &Path) -> Result<u64> {
    for _ in 0..2 {
        git_status(tree).context("git status for the first times")?;
    }
    git_status(tree).context("git status")
}

fn git_status(tree: &Path) -> Result<u64> {
    let mut git = Command::new("/usr/bin/git");
    git.arg("-C").arg(tree).args(["status", "--porcelain"]);
    let started = now_ns()?;
    let changed = output(&mut git)?;
    let took = now_ns()? - started;
    ensure!(changed.is_empty(), "the tree has changed: {changed}");
    Ok(took)
}

fn transaction(cluster: &Path) -> Result<u64> {
    let server = |deed: &[&str]| {
        let mut command = postgres("pg_ctl")?;
        command.args(["-s", "-w", "-D"]).arg(cluster).args(deed);
        run_silently(&mut command)
    };
    let settings = format!(
        "-c config_file={} -c data_directory={} -c unix_socket_directories={SOCKETS} -c external_pid_file= \
         -c listen_addresses= -c ssl=off -c shared_buffers=32MB",
        only("/etc/postgresql", "main/postgresql.conf")?,
        cluster.display()
    );
    server(&["-o", &settings, "start"])?;
    let pgbench = |transactions: u64| -> Result<u64> {
        let mut command = postgres("pgbench")?;
        let count = transactions.to_string();
        command.args(["-n", "-h", SOCKETS, "-t", &count, "postgres"]);
        let started = now_ns()?;
        output(&mut command)?;
        Ok(now_ns()? - started)
    };
    pgbench(TRANSACTIONS / 10)?;
    let took = pgbench(TRANSACTIONS)?;
    server(&["-m", "immediate", "stop"])?;
    Ok(took / TRANSACTIONS)
}

/// A program of PostgreSQL's, as its own user.
fn postgres(program: &str) -> Result<Command> {
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.arg(only("/usr/lib/postgresql", &format!("bin/{program}"))?);
    Ok(command)
}

/// `end` in the only folder of `parent`: one version of PostgreSQL is installed.
fn only(parent: &str, end: &str) -> Result<String> {
    let version = std::fs::read_dir(parent)?
        .next()
        .context("no PostgreSQL")??;
    Ok(version.path().join(end).display().to_string())
}

/// What a command prints that succeeds.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.output().context("start it")?;
    let told = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{}: {told}", done.status);
    Ok(String::from_utf8(done.stdout)?)
}

/// Of one that leaves a server behind, which keeps its outputs open.
fn run_silently(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().context("start it")?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
