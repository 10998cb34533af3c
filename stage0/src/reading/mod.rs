//! The files of a pod's app, out of the pod: a tar of a tree of them, from where they are. In a pod that runs, its stage 1 sends
//! it; of one that has ended, a machine that is made for that alone, or, where the app's root was a folder, this host.
//!
//! What is read is a stranger's, whoever sends it.

mod folder;
mod machine;

use std::fs::File;
use std::io::{self, Error, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::apps::entering;
use crate::commands::Context;
use crate::pods::{Pod, State};
use crate::stage1::Stage1;

/// What is read.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// The app.
    pub app: &'a str,
    /// Where it lies in the app's root; links are followed there.
    pub path: &'a str,
    /// What it is called in the tar.
    pub name: &'a str,
}

/// Refuses a pod whose files still change.
///
/// # Errors
/// If it runs.
pub fn expect_still(pod: &Pod) -> Result<()> {
    let uuid = pod.uuid();
    ensure!(
        pod.state()? != State::Running,
        "pod {uuid} is running, and its files change: `fairing stop {uuid}` ends it, `fairing cp` copies files out of it"
    );
    Ok(())
}

/// Hands `take` a tar of `tree`.
///
/// # Errors
/// Those of `take`; if the pod has no files yet or any more, or they cannot all be sent.
pub fn read<T>(
    pod: &Pod,
    tree: Tree<'_>,
    context: &Context,
    take: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    match pod.state()? {
        State::Running => {
            let mut serve = serve(pod, tree.app, &["pack", tree.path, tree.name])?;
            drain(serve.stdin(Stdio::null()), take)
        }
        State::Exited => {
            // Nobody runs, moves or removes the pod meanwhile.
            let _look = pod.wait_unlocked()?;
            let folder = pod.dir().tree_store_id(tree.app);
            match folder.exists() {
                true => {
                    let _turn = turn(&folder)?;
                    folder::read(pod, tree, take)
                }
                false => {
                    let disk = machine::disk(pod)?;
                    let _turn = turn(&disk)?;
                    machine::read(pod, tree, context, take)
                }
            }
        }
        state => bail!("pod {} is {state}: it has no files of its own", pod.uuid()),
    }
}

/// Waits for others who read what `file` stands for: a file system, or the layers of an overlay, is mounted once at a time.
fn turn(file: &Path) -> Result<File> {
    let file = File::open(file).with_context(|| format!("open {}", file.display()))?;
    file.lock()
        .context("wait for others who read the pod's files")?;
    Ok(file)
}

/// The command line of a program of the machine's own in a running app.
///
/// # Errors
/// If the pod does not run, or its stage 1 has no such programs.
pub fn serve(pod: &Pod, app: &str, program: &[&str]) -> Result<Command> {
    let pid = pod.running_pid()?;
    let serve = Stage1::of_pod(pod)?.serve()?;
    Ok(entering(&serve, pod, pid, app, program))
}

/// Runs `command` and hands its stdout to `take`. It has said itself what kept it from its work.
///
/// # Errors
/// Those of `take`, and if it fails.
pub fn drain<T>(command: &mut Command, take: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
    let program = Path::new(command.get_program()).display().to_string();
    let child = command.stdout(Stdio::piped()).spawn();
    taken_from(child.with_context(|| format!("execute {program}"))?, take)
}

/// Hands the stdout of a child to `take`, and waits for its end.
fn taken_from<T>(mut child: Child, take: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
    let stdout = child.stdout.take().context("the child has no stdout")?;
    let mut status = None;
    let mut end = || {
        let ended = child.wait()?;
        status = Some(ended);
        match ended.success() {
            true => Ok(()),
            false => Err(Error::other(format!(
                "what sends the files failed ({ended})"
            ))),
        }
    };
    let mut sent = Sent::new(stdout, &mut end);
    let taken = take(&mut sent);
    // It is told if it has more to say.
    drop(sent);
    let status = match status {
        Some(status) => status,
        None => child.wait().context("wait for what sends the files")?,
    };
    let taken = taken?;
    ensure!(status.success(), "what sends the files failed ({status})");
    Ok(taken)
}

/// A tar on its way. Its end is one only if who sends it says so, too: a sender that fails ends it as a whole one does.
struct Sent<'a, R> {
    from: R,
    end: Option<&'a mut dyn FnMut() -> io::Result<()>>,
}

impl<'a, R> Sent<'a, R> {
    /// What comes `from` a sender, whose success `end` waits for.
    fn new(from: R, end: &'a mut dyn FnMut() -> io::Result<()>) -> Self {
        let end = Some(end);
        Self { from, end }
    }
}

impl<R: Read> Read for Sent<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        if read == 0
            && !buffer.is_empty()
            && let Some(end) = self.end.take()
        {
            end()?;
        }
        Ok(read)
    }
}
