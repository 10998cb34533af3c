//! Ctrl-P and Ctrl-Q after another, by which a user leaves a terminal that is not his.

const FIRST: u8 = 0x10;
const SECOND: u8 = 0x11;

/// What of these keys has been typed.
#[derive(Default)]
pub struct LeavingKeys {
    first: bool,
}

impl LeavingKeys {
    /// What of `typed` is for the app, and whether the user leaves.
    pub fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut kept = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            let first = std::mem::replace(&mut self.first, *byte == FIRST);
            if first && *byte == SECOND {
                return (kept, true);
            }
            // Of two, the first is for the app.
            kept.extend(first.then_some(FIRST));
            kept.extend((!self.first).then_some(*byte));
        }
        (kept, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_keys_are_kept_from_the_app_only_together() {
        let typed = |pieces: &[&[u8]]| {
            let mut keys = LeavingKeys::default();
            let mut kept = Vec::new();
            let left = pieces.iter().any(|piece| {
                let (bytes, leaves) = keys.take(piece);
                kept.extend(bytes);
                leaves
            });
            (kept, left)
        };
        assert_eq!(typed(&[b"ab\x10", b"\x11c"]), (b"ab".to_vec(), true));
        assert_eq!(typed(&[b"\x10a\x11"]), (b"\x10a\x11".to_vec(), false));
        assert_eq!(typed(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(typed(&[b"\x11\x10"]), (b"\x11".to_vec(), false));
    }
}
