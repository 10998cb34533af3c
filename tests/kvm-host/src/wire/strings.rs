//! Lists of byte strings, each behind its length: the encoding of everything that is longer than a number.

use anyhow::{Context, Result, bail};

/// Appends `bytes` behind its length (4 bytes, little endian); fails over 4 GiB.
pub fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    let length = u32::try_from(bytes.len()).context("a string over 4 GiB")?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends a list: its length, then each string.
pub fn put_list<'a>(
    out: &mut Vec<u8>,
    list: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<()> {
    let length = u32::try_from(list.len()).context("a list over 4 G strings")?;
    out.extend_from_slice(&length.to_le_bytes());
    list.into_iter().try_for_each(|bytes| put(out, bytes))
}

/// Takes a number off the front; fails if the bytes end.
pub fn take_u32(input: &mut &[u8]) -> Result<u32> {
    let Some((number, rest)) = input.split_first_chunk::<4>() else {
        bail!("the bytes end in a number");
    };
    *input = rest;
    Ok(u32::from_le_bytes(*number))
}

/// Takes a string off the front; fails if the bytes end.
pub fn take(input: &mut &[u8]) -> Result<Vec<u8>> {
    let length = usize::try_from(take_u32(input)?)?;
    let Some((string, rest)) = input.split_at_checked(length) else {
        bail!("the bytes end in a string");
    };
    *input = rest;
    Ok(string.to_vec())
}

/// Takes a list off the front; its memory grows with the bytes that are there, not with the length it claims.
pub fn take_list(input: &mut &[u8]) -> Result<Vec<Vec<u8>>> {
    let length = take_u32(input)?;
    let mut list = Vec::new();
    for _ in 0..length {
        list.push(take(input)?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn list_written_and_read_is_the_same(list in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let mut bytes = Vec::new();
            put_list(&mut bytes, list.iter().map(Vec::as_slice)).unwrap();
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take_list(&mut rest).unwrap(), list);
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn list_of_any_bytes_never_panics(bytes: Vec<u8>) {
            let _ = take_list(&mut bytes.as_slice());
        }
    }
}
