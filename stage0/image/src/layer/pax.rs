//! Records of a PAX extended header: "length key=value\n". Values may hold any byte, newlines too, so the length
//! alone says where one ends. Pure; used by the tar reader.

use anyhow::{Context, Result};

/// Splits an extended header into keys and values.
pub(super) fn records(mut bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() || bytes.iter().all(|&byte| byte == 0) {
            return None;
        }
        let record = first(bytes).context("extended header is damaged");
        bytes = record.as_ref().map_or(&[], |&(_, _, rest)| rest);
        Some(record.map(|(key, value, _)| (key, value)))
    })
}

fn first(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// A number of decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits_only = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits_only.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// A time such as `-1.5` as seconds and nanoseconds after them.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, digits) = text
        .strip_prefix(b"-")
        .map_or((false, text), |digits| (true, digits));
    let mut parts = digits.splitn(2, |&byte| byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanoseconds = [b'0'; 9];
    let fraction = parts.next().unwrap_or_default();
    let kept = fraction.len().min(9);
    nanoseconds[..kept].copy_from_slice(&fraction[..kept]);
    let nanoseconds = u32::try_from(decimal(&nanoseconds)?).ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_with_newlines_in_its_value_is_whole() {
        let bytes = b"12 a=b\nc\n=d\n5 x=\n\0\0";
        let parsed: Result<Vec<_>> = records(bytes).collect();
        assert_eq!(
            parsed.expect("valid records"),
            [(&b"a"[..], &b"b\nc\n=d"[..]), (b"x", b"")]
        );
    }

    #[test]
    fn record_of_wrong_length_is_an_error() {
        for bytes in [
            &b"99 a=b\n"[..],
            b"5 a=b\n",
            b"x a=b\n",
            b"0 a=b\n",
            b"6 abc\n",
            b"18446744073709551616 a=b\n",
        ] {
            assert!(
                records(bytes).next().is_some_and(|record| record.is_err()),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn time_before_1970_counts_nanoseconds_upwards() {
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"12.0000000019"), Some((12, 1)));
        assert_eq!(time(b"-7"), Some((-7, 0)));
        assert_eq!(time(b"1.5x"), None);
        assert_eq!(time(b"99999999999999999999"), None);
    }
}
