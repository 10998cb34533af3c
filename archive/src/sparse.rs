//! The map of a file with holes, as GNU's PAX form 1.0 puts it before the file's data ("Storing Sparse Files", GNU tar manual).

/// Bytes of a tar block; the map fills whole ones.
const BLOCK: usize = 512;

/// Where a file has data. What lies between is zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseMap {
    /// Bytes of the file, holes included.
    pub(crate) size: u64,
    /// As it stands in the archive.
    pub(crate) text: Vec<u8>,
    /// Bytes of data.
    pub(crate) stored: u64,
}

impl SparseMap {
    /// The map of a file of `size` bytes that has data in these pieces, offset and length each, in order.
    pub fn new(size: u64, pieces: &[(u64, u64)]) -> Self {
        let mut pieces = pieces.to_vec();
        let end = pieces.last().map_or(0, |(offset, length)| offset + length);
        if end < size {
            // GNU's own reader finds the end of the file so.
            pieces.push((size, 0));
        }
        let mut text = format!("{}\n", pieces.len());
        for (offset, length) in &pieces {
            text += &format!("{offset}\n{length}\n");
        }
        let mut text = text.into_bytes();
        text.resize(text.len().next_multiple_of(BLOCK), 0);
        Self {
            size,
            text,
            stored: pieces.iter().map(|(_, length)| length).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_of_a_file_that_ends_in_a_hole_says_where_it_ends() {
        let map = SparseMap::new(9000, &[(0, 5), (4096, 3)]);
        assert_eq!(map.text.len(), BLOCK);
        assert!(map.text.starts_with(b"3\n0\n5\n4096\n3\n9000\n0\n\0"));
        assert_eq!(map.stored, 8);
        let full = SparseMap::new(5, &[(0, 5)]);
        assert!(full.text.starts_with(b"1\n0\n5\n\0"));
    }
}
