//! The range of uids that pods run under, `FIRST:COUNT`: chosen in stage 0's configuration, passed as an annotation of
//! the pod, used by a stage 1 that gives each pod a uid of its own, or as many as its guest may know.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};

/// The least uid a pod may have: those below belong to the system's services and to people (Debian policy 9.2.2).
const LEAST: u32 = 60_000;

/// Uids that mean nobody: the kernel's overflow uid, and "no uid" in 16 and in 32 bits.
const NOBODY: [u32; 3] = [65_534, 65_535, u32::MAX];

/// Ids of a pod that has a block of them: those that files of ordinary systems have, nobody's among them.
pub const BLOCK: u32 = 65_536;

/// A range of uids that is fit for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UidRange {
    first: u32,
    count: u32,
}

impl UidRange {
    /// The uids from `first` on.
    ///
    /// # Errors
    /// If there is none, or one of them belongs to somebody else.
    pub fn new(first: u32, count: u32) -> Result<Self> {
        ensure!(count >= 1, "it holds no uid");
        ensure!(
            first >= LEAST,
            "uids below {LEAST} belong to the system and its users"
        );
        ensure!(
            first.checked_add(count).is_some(),
            "it goes beyond the last uid, {}",
            u32::MAX - 1
        );
        let range = Self { first, count };
        for uid in NOBODY {
            ensure!(
                !(first..first + count).contains(&uid),
                "it holds {uid}, which is nobody's"
            );
        }
        Ok(range)
    }

    /// The uids for pods with a single one, in order: the first [`BLOCK`].
    pub fn uids(self) -> Range<u32> {
        self.first..self.first + self.count.min(BLOCK)
    }

    /// The first uids of the blocks after those, for pods with a block, in order.
    pub fn blocks(self) -> impl Iterator<Item = u32> {
        (1..self.count / BLOCK).map(move |block| self.first + block * BLOCK)
    }
}

/// Above the ranges of subordinate ids and of systemd's containers, below those of its foreign images.
impl Default for UidRange {
    fn default() -> Self {
        Self {
            first: 0x7000_0000,
            count: 0x0ffe_0000,
        }
    }
}

impl FromStr for UidRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let (first, count) = text.split_once(':').context("it has no colon")?;
            Self::new(first.parse()?, count.parse()?)
        };
        read().with_context(|| format!("read range of uids {text:?} (FIRST:COUNT)"))
    }
}

impl fmt::Display for UidRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.first, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_written_and_read_is_the_same() {
        for range in [
            UidRange::default(),
            UidRange::new(60_000, 1).expect("a range"),
            UidRange::new(u32::MAX - 1, 1).expect("the last uid"),
        ] {
            assert_eq!(
                range.to_string().parse::<UidRange>().expect("a range"),
                range
            );
        }
        assert_eq!(
            "100000:2".parse::<UidRange>().expect("a range").uids(),
            100_000..100_002
        );
    }

    #[test]
    fn range_has_single_uids_first_and_then_whole_blocks() {
        let range = UidRange::new(100_000, 3 * BLOCK + 5).expect("a range");
        assert_eq!(range.uids(), 100_000..165_536);
        assert_eq!(range.blocks().collect::<Vec<_>>(), [165_536, 231_072]);
        let small = UidRange::new(100_000, 2 * BLOCK - 1).expect("a range");
        assert_eq!(small.blocks().next(), None);
    }

    #[test]
    fn range_that_holds_others_uids_or_none_is_refused() {
        for (text, reason) in [
            ("", "no colon"),
            ("100000", "no colon"),
            ("100000:", "empty"),
            ("-1:5", "invalid digit"),
            ("100000:0", "no uid"),
            ("0:65536", "below 60000"),
            ("999:5", "below 60000"),
            ("65000:1000", "65534"),
            ("65535:1", "65535"),
            ("4294967295:1", "last uid"),
            ("4294967294:2", "last uid"),
            ("4294967290:99", "last uid"),
        ] {
            let error = text.parse::<UidRange>().expect_err(text);
            assert!(format!("{error:#}").contains(reason), "{text}: {error:#}");
        }
    }
}
