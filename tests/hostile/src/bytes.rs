//! Faults in a run of bytes.

use proptest::prelude::*;
use proptest::sample::Index;

/// One fault; an index counts modulo what there is.
#[derive(Clone, Debug)]
pub enum Fault {
    /// One byte is another.
    Set(Index, u8),
    /// One bit is another.
    Flip(Index, u8),
    /// So many bytes of this value more.
    Insert(Index, u8, usize),
    /// So many bytes fewer.
    Remove(Index, usize),
    /// So many bytes twice.
    Repeat(Index, usize),
    /// The end is missing.
    Cut(Index),
}

/// Up to `most` faults; none at all now and then, so that valid input stays in the test.
pub fn faults(most: usize) -> impl Strategy<Value = Vec<Fault>> {
    let at = any::<Index>;
    let value = || prop_oneof![Just(0), Just(0xff), Just(b'0'), Just(b'/'), any::<u8>()];
    let fault = prop_oneof![
        8 => (at(), value()).prop_map(|(at, value)| Fault::Set(at, value)),
        4 => (at(), 0u8..8).prop_map(|(at, bit)| Fault::Flip(at, bit)),
        2 => (at(), value(), 1usize..600).prop_map(|(at, value, count)| Fault::Insert(at, value, count)),
        2 => (at(), 1usize..600).prop_map(|(at, count)| Fault::Remove(at, count)),
        2 => (at(), 1usize..600).prop_map(|(at, count)| Fault::Repeat(at, count)),
        1 => at().prop_map(Fault::Cut),
    ];
    prop::collection::vec(fault, 0..=most)
}

/// Puts `faults` into `bytes`, one after the other.
pub fn damage(bytes: &mut Vec<u8>, faults: &[Fault]) {
    for fault in faults {
        if bytes.is_empty() {
            return;
        }
        let place = |at: &Index| at.index(bytes.len());
        match fault {
            Fault::Set(at, value) => {
                let at = place(at);
                bytes[at] = *value;
            }
            Fault::Flip(at, bit) => {
                let at = place(at);
                bytes[at] ^= 1 << bit;
            }
            Fault::Insert(at, value, count) => {
                let at = place(at);
                bytes.splice(at..at, std::iter::repeat_n(*value, *count));
            }
            Fault::Remove(at, count) => {
                let at = place(at);
                let end = bytes.len().min(at + count);
                bytes.drain(at..end);
            }
            Fault::Repeat(at, count) => {
                let at = place(at);
                let end = bytes.len().min(at + count);
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            Fault::Cut(at) => {
                let at = place(at);
                bytes.truncate(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #[test]
        fn damage_without_faults_changes_nothing_and_never_grows_much(
            bytes in prop::collection::vec(any::<u8>(), 0..100), faults in faults(6)
        ) {
            let mut damaged = bytes.clone();
            damage(&mut damaged, &faults);
            prop_assert!(damaged.len() <= bytes.len() + 6 * 600);
            prop_assert!(!faults.is_empty() || damaged == bytes);
        }
    }
}
