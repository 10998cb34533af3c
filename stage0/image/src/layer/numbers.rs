//! Numeric fields of a tar header: octal text, or base 256 with its first bit set. Pure; used by the tar reader.

/// A field's value; an empty field is 0. None for what is no number or beyond 64 bits.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first()? {
        byte if byte & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

/// A field that cannot be negative.
pub(super) fn size(field: &[u8]) -> Option<u64> {
    u64::try_from(number(field)?).ok()
}

fn octal(field: &[u8]) -> Option<i64> {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    let digits = field[..end].trim_ascii();
    if digits.is_empty() {
        return Some(0);
    }
    let all_octal = digits.iter().all(|digit| (b'0'..=b'7').contains(digit));
    all_octal.then(|| i64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok())?
}

/// Two's complement, big-endian; the top bit only says that it is this form.
fn base_256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let mut value = i128::from(field[0] & 0x3f) - if negative { 0x40 } else { 0 };
    for &byte in &field[1..] {
        value = value.checked_mul(256)?.checked_add(i128::from(byte))?;
    }
    i64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_each_form_is_read() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\xee\x6b\x28\0"), Some(4_000_000_000));
        assert_eq!(number(&[0xff; 12]), Some(-1));
    }

    #[test]
    fn number_that_is_none_or_too_large_is_refused() {
        assert_eq!(number(b"12345679"), None);
        assert_eq!(number(b"-1\0"), None);
        assert_eq!(
            number(b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            None
        );
        assert_eq!(size(&[0xff; 8]), None);
    }
}
