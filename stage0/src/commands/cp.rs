//! `fairing cp`: files into a pod that runs, and out of one that runs or has ended.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use image::{Place, extract, reframe};

use super::Context;
use crate::pods::{Pod, State};
use crate::reading::{self, Tree, serve};

/// What stands for stdin or stdout.
const STREAM: &str = "-";

/// What a tree is called whose content alone is meant.
const CONTENT: &str = ".";

/// Copies files and folders between a pod and the host
#[derive(Debug, Args)]
#[command(
    override_usage = "fairing cp [--app=NAME] POD:PATH HOST\n       fairing cp [--app=NAME] HOST POD:PATH",
    after_help = "POD is a unique beginning of a UUID; a host's path with a colon in it begins with / or ./. PATH is in the app's \
    root, where its links are followed. What is copied goes into a folder that is there, and else gets the given name; of a path \
    that ends in /. the content is copied. As HOST, - is a tar on stdin or stdout.\n\nCopies belong to root in the pod, on the host \
    to the caller, and lose set-id bits and extended attributes. Devices and pipes are left out. Of a pod that has ended files can be \
    copied, but not those of its volumes; none can be copied into it.\n\nExamples:\n  fairing cp 1b4e28ba:/etc/hosts .\n  fairing cp \
    site/. 1b4e28ba:/srv/www\n  fairing cp 1b4e28ba:/var/log - | tar t"
)]
pub struct Cp {
    /// App whose files are meant; needed in a pod of several
    #[arg(long, value_name = "NAME")]
    pub app: Option<String>,
    /// What to copy
    pub source: String,
    /// Where to
    pub target: String,
}

/// A place as the command line names it.
#[derive(Debug, PartialEq, Eq)]
enum Spot<'a> {
    Pod { uuid: &'a str, path: &'a str },
    Host(&'a str),
}

impl<'a> Spot<'a> {
    fn parse(text: &'a str) -> Self {
        let is_of_host = text.starts_with(['/', '.']);
        match text.split_once(':').filter(|_| !is_of_host) {
            Some((uuid, path)) => Self::Pod { uuid, path },
            None => Self::Host(text),
        }
    }
}

impl Cp {
    /// Copies.
    ///
    /// # Errors
    /// If something cannot be read or made.
    pub fn run(self, context: &Context) -> Result<i32> {
        let app = |pod: &Pod| pod.app_or_only(self.app.as_deref(), "--app");
        match (Spot::parse(&self.source), Spot::parse(&self.target)) {
            (Spot::Pod { uuid, path }, Spot::Host(target)) => {
                let pod = context.pods.find(uuid)?;
                copy_out(&pod, &app(&pod)?, path, target, context)?;
            }
            (Spot::Host(source), Spot::Pod { uuid, path }) => {
                let pod = context.pods.find(uuid)?;
                copy_in(&pod, &app(&pod)?, source, path)?;
            }
            (Spot::Host(_), Spot::Host(_)) => {
                bail!("neither is of a pod: POD:PATH names a place in one")
            }
            (Spot::Pod { .. }, Spot::Pod { .. }) => {
                bail!("both are of pods: copy to a folder of the host first")
            }
        }
        Ok(0)
    }
}

fn copy_out(pod: &Pod, app: &str, path: &str, target: &str, context: &Context) -> Result<()> {
    let absolute = format!("/{}", path.trim_start_matches('/'));
    let name = name_of(&absolute);
    let tree = Tree {
        app,
        path: &absolute,
        name,
    };
    if target == STREAM {
        return reading::read(pod, tree, context, |files| {
            let mut tar = tar::Builder::new(BufWriter::new(std::io::stdout()));
            reframe(files, name, &mut tar)?;
            Ok(tar.into_inner()?.flush()?)
        });
    }
    let target = std::path::absolute(target)?;
    let (folder, name) = place(&target, name)?;
    let name = name.as_deref();
    let place = Place {
        folder: &folder,
        name,
    };
    let left_out = reading::read(pod, tree, context, |files| {
        extract(files, tree.name, place).with_context(|| format!("copy to {}", target.display()))
    })?;
    if left_out > 0 {
        crate::note(&format!("{left_out} devices and pipes were left out"));
    }
    Ok(())
}

/// The folder that a copy goes to, and its name there.
fn place(target: &Path, name: &str) -> Result<(PathBuf, Option<OsString>)> {
    if target.is_dir() {
        let name = (name != CONTENT).then(|| name.into());
        return Ok((target.to_owned(), name));
    }
    let named = target.parent().zip(target.file_name());
    let (folder, name) = named.with_context(|| format!("{} is no place", target.display()))?;
    ensure!(
        folder.is_dir(),
        "there is no folder {} to copy to",
        folder.display()
    );
    Ok((folder.to_owned(), Some(name.to_owned())))
}

fn copy_in(pod: &Pod, app: &str, source: &str, path: &str) -> Result<()> {
    let state = pod.state()?;
    if state != State::Running {
        bail!(
            "pod {} is {state}: files go only into one that runs; out of an exited one, `fairing export` makes an image",
            pod.uuid()
        );
    }
    let absolute = format!("/{}", path.trim_start_matches('/'));
    let told = || format!("pod {} took no copy", pod.uuid());
    if source == STREAM {
        let status = serve(pod, app, &["unpack", &absolute])?.status();
        ensure!(status.with_context(told)?.success(), told());
        return Ok(());
    }
    let source_path = Path::new(source);
    ensure!(source_path.exists(), "{source} does not exist");
    let name = name_of(source);
    let mut serve = serve(pod, app, &["unpack", &absolute, name])?;
    let mut child = serve.stdin(Stdio::piped()).spawn().with_context(told)?;
    let mut stdin = BufWriter::new(child.stdin.take().context("the child has no stdin")?);
    let packed =
        archive::pack(source_path, name.as_bytes(), &mut stdin).and_then(|()| Ok(stdin.flush()?));
    drop(stdin);
    let status = child.wait().with_context(told)?;
    // Who takes no more has said why.
    match packed {
        Err(error) if status.success() => Err(error),
        _ => {
            ensure!(status.success(), told());
            Ok(())
        }
    }
}

/// What a copy of `path` is called in the folder that it goes to.
fn name_of(path: &str) -> &str {
    let last = path.trim_end_matches('/').rsplit('/').next();
    match last {
        None | Some("" | "." | "..") => CONTENT,
        Some(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spot_of_the_host_begins_with_a_slash_or_dot_or_has_no_colon() {
        for host in ["/a:b", "./a:b", "../a:b", "a", "-"] {
            assert_eq!(Spot::parse(host), Spot::Host(host));
        }
        let (uuid, path) = ("1b4e", "/a:b");
        assert_eq!(Spot::parse("1b4e:/a:b"), Spot::Pod { uuid, path });
    }

    #[test]
    fn name_of_a_path_that_means_content_is_none_of_its_own() {
        for (path, name) in [
            ("/etc/hosts", "hosts"),
            ("dir/", "dir"),
            ("dir/.", "."),
            ("/", "."),
            ("a/..", "."),
        ] {
            assert_eq!(name_of(path), name);
        }
    }

    #[test]
    fn place_of_a_copy_is_in_a_folder_that_is_there_or_has_the_given_name() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let there = folder.path().to_owned();
        assert_eq!(
            place(&there, "x")?,
            (there.clone(), Some(OsString::from("x")))
        );
        assert_eq!(place(&there, ".")?, (there.clone(), None));
        let new = OsString::from("new");
        assert_eq!(place(&there.join("new"), "x")?, (there.clone(), Some(new)));
        assert!(place(&there.join("no/new"), "x").is_err());
        Ok(())
    }
}
