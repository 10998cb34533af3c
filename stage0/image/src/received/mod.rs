//! A tree of files as it comes out of a machine: a tar in which all may be a lie. Each entry is parsed and judged here, and
//! written anew: into another tar, or into a folder of the host. Called by stage 0's commands, on their thread.

mod extract;
mod reframe;

use std::io::{self, ErrorKind, Read};

use anyhow::{Context, Result, ensure};

use crate::erofs::printed;
use crate::layer::{Archive, Member, Type, below};
use crate::limits::Limits;
use crate::tree::clean;

pub use extract::{Place, extract};
pub use reframe::reframe;

/// Takes each entry of `tar`, in order, with its data: all lie at or below `root`, and their paths, and what hard links name, are
/// told relative to it; the root's own is empty.
pub(crate) fn each(
    tar: impl Read,
    root: &str,
    mut take: impl FnMut(&Member, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let root = clean(root.as_bytes())?;
    let inside = |path: &[u8]| -> Result<Vec<u8>> {
        let path = clean(path)?;
        let inside = below(&path, &root);
        Ok(inside.context("it leads out of the tree")?.to_vec())
    };
    let limits = Limits::default();
    let mut left = limits.input_bytes;
    let mut archive = Archive::new(tar, &limits, &mut left);
    let mut count = 0;
    while let Some(mut member) = archive.next().context("read what the machine sends")? {
        count += 1;
        ensure!(
            count <= limits.entries,
            "more than {} files are sent",
            limits.entries
        );
        let called = printed(&member.path);
        let judged = limits.check_path(&member.path).and_then(|()| {
            member.path = inside(&member.path)?;
            if member.kind == Type::HardLink {
                member.target = inside(&member.target)?;
            }
            ensure!(!member.is_sparse(), "it is sparse, which no machine sends");
            let left = member.stored;
            take(
                &member,
                &mut Promised {
                    data: archive.data(),
                    left,
                },
            )
        });
        judged.with_context(|| called)?;
    }
    ensure!(count > 0, "nothing was sent");
    Ok(())
}

/// Data of which so much is to come: that it ends before is an error, and not only found out with the next entry.
struct Promised<R> {
    data: R,
    left: u64,
}

impl<R: Read> Read for Promised<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.data.read(buffer)?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it is cut short"));
        }
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
