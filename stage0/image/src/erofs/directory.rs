//! The content of a directory on disk: blocks of sorted entries, each block with its own names. Pure; used by
//! the metadata passes, first for the size, then for the bytes.

use super::spec::{BLOCK, DIRENT_BYTES};

/// Adds up how large a directory becomes as its names come by in byte order.
#[derive(Default)]
pub(super) struct Measure {
    full_bytes: u64,
    block_bytes: usize,
}

impl Measure {
    pub(super) fn add(&mut self, name: &[u8]) {
        let entry = DIRENT_BYTES + name.len();
        if self.block_bytes + entry > BLOCK {
            self.full_bytes += BLOCK as u64;
            self.block_bytes = 0;
        }
        self.block_bytes += entry;
    }

    /// The directory's size in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.full_bytes + self.block_bytes as u64
    }
}

/// Encodes one block after another.
#[derive(Default)]
pub(super) struct Encoder {
    entries: Vec<(u64, u8, usize)>,
    names: Vec<u8>,
}

impl Encoder {
    /// Adds a name; returns the block before it when that has no room left.
    pub(super) fn add(&mut self, name: &[u8], nid: u64, file_type: u8) -> Option<Vec<u8>> {
        let used = self.entries.len() * DIRENT_BYTES + self.names.len();
        let full = (used + DIRENT_BYTES + name.len() > BLOCK).then(|| {
            let mut block = self.finish();
            block.resize(BLOCK, 0);
            block
        });
        self.entries.push((nid, file_type, self.names.len()));
        self.names.extend_from_slice(name);
        full
    }

    /// The block so far, as long as its entries and names are.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let names_at = self.entries.len() * DIRENT_BYTES;
        let mut block = Vec::with_capacity(BLOCK);
        for &(nid, file_type, name_at) in &self.entries {
            block.extend(nid.to_le_bytes());
            // A block is 4 KiB: the offset fits.
            block.extend(
                u16::try_from(names_at + name_at)
                    .unwrap_or_default()
                    .to_le_bytes(),
            );
            block.extend([file_type, 0]);
        }
        block.append(&mut self.names);
        self.entries.clear();
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_of_many_names_is_as_long_as_measured() {
        let names: Vec<String> = (1000..2000)
            .map(|number| format!("a-rather-long-name-{number}"))
            .collect();
        let (mut measure, mut encoder, mut bytes) =
            (Measure::default(), Encoder::default(), Vec::new());
        for name in &names {
            measure.add(name.as_bytes());
            bytes.extend(encoder.add(name.as_bytes(), 9, 1).unwrap_or_default());
        }
        assert_eq!(bytes.len() % BLOCK, 0);
        bytes.extend(encoder.finish());
        assert_eq!(bytes.len() as u64, measure.bytes());
        assert_eq!(
            &bytes[..12],
            [9, 0, 0, 0, 0, 0, 0, 0, bytes[8], bytes[9], 1, 0]
        );
    }
}
