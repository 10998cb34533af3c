//! Images whose layers have files of their own for their data, for several images to use.

use std::fs::File;

use anyhow::{Context, Result, ensure};

use super::Writer;
use super::blocks::Blocks;
use super::inode::inode_bytes;
use super::journal::{Journal, Step, Steps};
use crate::limits::Limits;

impl Writer {
    /// Starts an image whose layers have files of their own; the empty file `index` becomes what is to be read in front of these.
    pub(crate) fn layered(index: File, scratch: File, limits: Limits) -> Result<Self> {
        let blocks = Blocks::of_layers(&limits);
        Self::with(blocks, Some(index), scratch, limits)
    }

    /// Applies a layer by `apply`, its data into the empty file `data` and what it does into the empty file `journal`; gives the
    /// number of its blocks.
    pub(crate) fn record_layer(
        &mut self,
        data: File,
        journal: File,
        apply: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<u32> {
        self.blocks.begin_layer(data);
        self.journal = Some(Journal::begin(journal)?);
        apply(self)?;
        self.journal.take().map_or(Ok(()), Journal::end)?;
        let blocks = self.blocks.end_layer()?;
        self.devices.add(blocks);
        Ok(blocks)
    }

    /// Applies a layer again that was recorded with the journal in `journal` and that many `blocks`.
    pub(crate) fn replay_layer(&mut self, journal: File, blocks: u32) -> Result<()> {
        self.begin_layer()?;
        let base = self.blocks.take_kept(blocks)?;
        self.devices.add(blocks);
        let mut steps = Steps::open(journal, &self.limits, blocks, base)?;
        while let Some(step) = steps.next(&mut self.tree.scratch).context("read a step")? {
            self.count_entry()?;
            self.take(step)?;
        }
        Ok(())
    }

    fn take(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Put(path, record) => {
                self.limits.check_path(&path)?;
                ensure!(
                    record.size <= self.limits.file_bytes,
                    "a file larger than any"
                );
                self.blocks.wait(inode_bytes(&record))?;
                self.place(&path, &record)
            }
            Step::Link(path, target) => self.place_link(&path, &target),
            Step::WhiteOut(path) => self.hide(&path),
            Step::Opaque(path) => self.hide_below(&path),
        }
    }
}
