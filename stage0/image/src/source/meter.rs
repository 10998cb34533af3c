//! How far an import is: counts the bytes read from the source and tells the caller, not more often than needed.

use std::cell::Cell;
use std::io::{self, Read};

/// Bytes between two reports.
const STEP_BYTES: u64 = 1 << 20;

/// A step of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A layer, or the one archive or folder, is being read.
    Layer {
        /// From 1 on.
        index: usize,
        /// How many there are.
        of: usize,
        /// Bytes read of the source, compressed as it is.
        bytes_done: u64,
        /// Bytes of the source; 0 if not known.
        bytes_total: u64,
    },
    /// Metadata is written and the file made durable.
    Writing,
}

/// Counts and reports.
pub struct Meter<'a> {
    report: &'a dyn Fn(Progress),
    index: Cell<usize>,
    of: Cell<usize>,
    done: Cell<u64>,
    total: Cell<u64>,
}

impl<'a> Meter<'a> {
    /// Reports to `report`.
    pub fn new(report: &'a dyn Fn(Progress)) -> Self {
        Self {
            report,
            index: Cell::new(0),
            of: Cell::new(0),
            done: Cell::new(0),
            total: Cell::new(0),
        }
    }

    /// Layer `index`, from 1 on, of `of` begins; it has `total` bytes.
    pub fn begin(&self, index: usize, of: usize, total: u64) {
        self.index.set(index);
        self.of.set(of);
        self.done.set(0);
        self.total.set(total);
        self.tell();
    }

    /// All is read, the rest is writing.
    pub fn writing(&self) {
        (self.report)(Progress::Writing);
    }

    /// `reader`, its bytes counted.
    pub fn watch<'m, R: Read>(&'m self, reader: R) -> Metered<'m, 'a, R> {
        Metered {
            meter: self,
            reader,
        }
    }

    fn tell(&self) {
        (self.report)(Progress::Layer {
            index: self.index.get(),
            of: self.of.get(),
            bytes_done: self.done.get(),
            bytes_total: self.total.get(),
        });
    }
}

/// A reader whose bytes a meter counts.
pub struct Metered<'m, 'a, R> {
    meter: &'m Meter<'a>,
    reader: R,
}

impl<R: Read> Read for Metered<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        let before = self.meter.done.get();
        let after = before + count as u64;
        self.meter.done.set(after);
        if before / STEP_BYTES != after / STEP_BYTES {
            self.meter.tell();
        }
        Ok(count)
    }
}
