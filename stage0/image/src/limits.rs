//! What one conversion may cost. Every source of an image is a stranger's; the writer checks these as it goes.

use anyhow::{Result, ensure};

/// Upper bounds of one image conversion; going over any of them is an error that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Size of the finished EROFS file in bytes, holes within files not counted, hidden data counted.
    pub image_bytes: u64,
    /// Bytes of that which the image may take anew: not those of layers that are kept already.
    pub new_bytes: u64,
    /// Uncompressed bytes read from all layers together.
    pub input_bytes: u64,
    /// Entries of all layers together, whiteouts and missing parents included.
    pub entries: u32,
    /// Length of a path or of a link's target in bytes.
    pub path_bytes: usize,
    /// Directories above one another.
    pub depth: usize,
    /// Extended attributes of one entry: names and values together, in bytes.
    pub xattr_bytes: usize,
    /// Bytes of the extended headers of one entry of a tar, together.
    pub header_bytes: usize,
    /// Pieces of data between the holes of one sparse file.
    pub extents: usize,
    /// Size of one file in bytes, holes included.
    pub file_bytes: u64,
}

/// What a limited store has no more room than, for people.
pub(crate) fn room_left(bytes: u64) -> String {
    format!(
        "the store may take {bytes} bytes more (max-store-size; `fairing image df` shows what takes the others)"
    )
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            image_bytes: 64 << 30,
            new_bytes: u64::MAX,
            input_bytes: 256 << 30,
            entries: 16_000_000,
            path_bytes: 4095,
            depth: 1024,
            xattr_bytes: 128 << 10,
            header_bytes: 1 << 20,
            extents: 256 << 10,
            file_bytes: 16 << 40,
        }
    }
}

impl Limits {
    /// Refuses a path or link target that is too long, or that no Linux file system could hold.
    pub(crate) fn check_path(&self, path: &[u8]) -> Result<()> {
        ensure!(
            path.len() <= self.path_bytes,
            "name of {} bytes is longer than the limit of {}",
            path.len(),
            self.path_bytes
        );
        ensure!(!path.contains(&0), "name contains a zero byte");
        Ok(())
    }
}
