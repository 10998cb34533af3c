//! Extended attributes as they lie behind an inode. Pure; called by the writer for each entry.

use std::collections::BTreeMap;

use super::spec::{XATTR_HEADER_BYTES, XATTR_PREFIXES};

/// Names with values.
pub(crate) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Encodes attributes; what cannot be kept goes to `lost` with the reason. Empty when there is nothing to keep.
pub(super) fn encode(xattrs: &Xattrs, mut lost: impl FnMut(&[u8], &str)) -> Vec<u8> {
    let mut encoded = vec![0; XATTR_HEADER_BYTES];
    for (name, value) in xattrs {
        match encode_one(name, value) {
            Ok(one) => encoded.extend(one),
            Err(reason) => lost(name, reason),
        }
    }
    if encoded.len() == XATTR_HEADER_BYTES {
        encoded.clear();
    }
    encoded
}

/// The `i_xattr_icount` of attributes of that many encoded bytes.
pub(super) fn count(encoded_bytes: u32) -> u16 {
    let header = u32::try_from(XATTR_HEADER_BYTES).unwrap_or(u32::MAX);
    let units = encoded_bytes
        .checked_sub(header)
        .map_or(0, |entries| entries / 4 + 1);
    u16::try_from(units).unwrap_or(u16::MAX)
}

/// Encoded bytes of attributes with this `i_xattr_icount`: the other way of [`count`].
pub(super) fn bytes(count: u16) -> u64 {
    let entries = u64::from(count).checked_sub(1);
    entries.map_or(0, |entries| XATTR_HEADER_BYTES as u64 + entries * 4)
}

fn encode_one(name: &[u8], value: &[u8]) -> Result<Vec<u8>, &'static str> {
    if is_overlay_mark(name) {
        return Err("overlayfs would take it as its own mark");
    }
    let known = XATTR_PREFIXES
        .iter()
        .find_map(|&(prefix, index)| Some((name.strip_prefix(prefix)?, index)));
    let (rest, index) = known.ok_or("EROFS has no place for this kind of name")?;
    let is_acl = matches!(index, 2 | 3);
    // A zero byte ends a name in the lists that programs read; what follows it would look like one more name.
    if rest.is_empty() != is_acl || rest.contains(&0) {
        return Err("not a valid name");
    }
    if is_acl && !is_valid_acl(value) {
        return Err("not a valid access control list");
    }
    let name_bytes = u8::try_from(rest.len()).map_err(|_| "name is longer than 255 bytes")?;
    let value_bytes =
        u16::try_from(value.len()).map_err(|_| "value is longer than 65,535 bytes")?;
    let mut one = vec![name_bytes, index];
    one.extend(value_bytes.to_le_bytes());
    one.extend(rest);
    one.extend(value);
    one.resize(one.len().next_multiple_of(4), 0);
    Ok(one)
}

/// Attributes by which overlayfs marks its own upper directories.
fn is_overlay_mark(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Version 2 (POSIX_ACL_XATTR_VERSION), then entries of 8 bytes; the kernel fails every access on anything else.
fn is_valid_acl(value: &[u8]) -> bool {
    value
        .strip_prefix(&[2, 0, 0, 0])
        .is_some_and(|entries| entries.len() % 8 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(pairs: &[(&[u8], &[u8])]) -> (Vec<u8>, usize) {
        let xattrs = pairs
            .iter()
            .map(|&(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        let mut lost = 0;
        let bytes = encode(&xattrs, |_, _| lost += 1);
        (bytes, lost)
    }

    #[test]
    fn xattrs_of_known_prefix_are_padded_to_four_bytes() {
        let (bytes, lost) = encoded(&[(b"user.k", b"vvv")]);
        assert_eq!(bytes[12..], [1, 1, 3, 0, b'k', b'v', b'v', b'v']);
        assert_eq!((count(20), super::bytes(3), lost), (3, 20, 0));
        assert_eq!((count(0), super::bytes(0)), (0, 0));
    }

    #[test]
    fn xattrs_that_cannot_be_kept_are_counted_and_left_out() {
        let long = [b"user.".as_slice(), &[b'x'; 256]].concat();
        let huge = vec![0; 65_536];
        let (bytes, lost) = encoded(&[
            (b"btrfs.x", b""),
            (b"trusted.overlay.opaque", b"y"),
            (b"user.overlay.whiteout", b"y"),
            (b"system.posix_acl_access", b"bad"),
            (b"user.", b""),
            (b"user.a\0trusted.overlay.opaque", b"y"),
            (&long, b""),
            (b"user.huge", &huge),
        ]);
        assert_eq!((bytes.len(), lost), (0, 8));
    }
}
