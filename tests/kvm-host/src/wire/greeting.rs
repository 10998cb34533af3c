//! How two ends of a port find each other: a port outlives its clients, so bytes of an earlier one may come first.
//! Each end looks for a mark and a nonce in whatever arrives and drops all that precedes them.

use super::spec::{HELLO, NONCE_BYTES, WELCOME};

/// What tells one connection from an earlier one on the same port.
pub type Nonce = [u8; NONCE_BYTES];

/// The client's first bytes.
pub fn hello(nonce: &Nonce) -> Vec<u8> {
    [HELLO.as_slice(), nonce].concat()
}

/// The agent's first bytes.
pub fn welcome(nonce: &Nonce) -> Vec<u8> {
    [WELCOME.as_slice(), nonce].concat()
}

/// Looks for a client's greeting; takes it and all before it out of `bytes`.
pub fn find_hello(bytes: &mut Vec<u8>) -> Option<Nonce> {
    find(bytes, HELLO)
}

/// Looks for the answer to `nonce`; takes it and all before it, other answers included, out of `bytes`.
pub fn find_welcome(bytes: &mut Vec<u8>, nonce: &Nonce) -> bool {
    while let Some(found) = find(bytes, WELCOME) {
        if found == *nonce {
            return true;
        }
    }
    false
}

fn find(bytes: &mut Vec<u8>, mark: &[u8]) -> Option<Nonce> {
    let Some(at) = bytes.windows(mark.len()).position(|window| window == mark) else {
        // Only the tail can still be the beginning of a mark.
        let stale = bytes.len().saturating_sub(mark.len() - 1);
        bytes.drain(..stale);
        return None;
    };
    let nonce: Nonce = *bytes.get(at + mark.len()..)?.first_chunk()?;
    bytes.drain(..at + mark.len() + NONCE_BYTES);
    Some(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hello_after_stale_bytes_is_found_and_leaves_what_follows(stale: Vec<u8>, nonce: Nonce, after: Vec<u8>) {
            let mut bytes = [stale, hello(&nonce), after.clone()].concat();
            prop_assert_eq!(find_hello(&mut bytes), Some(nonce));
            prop_assert_eq!(bytes, after);
        }

        #[test]
        fn hello_byte_by_byte_is_found(stale: Vec<u8>, nonce: Nonce) {
            let mut bytes = Vec::new();
            let mut found = None;
            for byte in [stale, hello(&nonce)].concat() {
                bytes.push(byte);
                found = found.or(find_hello(&mut bytes));
            }
            prop_assert_eq!(found, Some(nonce));
        }
    }

    #[test]
    fn welcome_to_another_client_is_dropped() {
        let mut bytes = [welcome(&[1; 16]), welcome(&[2; 16]), b"rest".to_vec()].concat();
        assert!(find_welcome(&mut bytes, &[2; 16]));
        assert_eq!(bytes, b"rest");
    }
}
