//! A tree of files as it comes out of a machine: a tar in which all may be a lie. Each entry is parsed and judged here, and
//! written anew: into another tar, or into a folder of the host. Called by stage 0's commands, on their thread.

mod extract;
mod reframe;

use std::io::Read;

use anyhow::{Context, Result, ensure};

use crate::erofs::printed;
use crate::layer::{Archive, Member, Type, below};
use crate::limits::Limits;
use crate::tree::clean;

pub use extract::{Place, extract};
pub use reframe::reframe;

/// Takes each entry of `tar`, in order, with its data: all lie at or below `root`, and their paths, and what hard links name, are
/// told relative to it; the root's own is empty.
fn each(
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
            take(&member, &mut archive.data())
        });
        judged.with_context(|| called)?;
    }
    ensure!(count > 0, "nothing was sent");
    Ok(())
}

#[cfg(test)]
mod tests;
