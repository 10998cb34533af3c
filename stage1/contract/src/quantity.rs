//! appc quantities: an integer or decimal number with a suffix, as `512Mi`, `500m`, `1.5G`.

use anyhow::{Context, Result, bail};

/// The quantity in thousandths, so that `500m` is exact.
///
/// # Errors
/// For text that is no quantity, is negative, or exceeds 2^127 thousandths.
pub fn parse_milli(text: &str) -> Result<u128> {
    parse(text).with_context(|| format!("read quantity {text:?} (as in 512Mi, 500m, 1.5G)"))
}

/// The quantity rounded up to a whole number.
///
/// # Errors
/// As [`parse_milli`]; also for more than 2^64 - 1.
pub fn parse_whole(text: &str) -> Result<u64> {
    let whole = parse_milli(text)?.div_ceil(1000);
    u64::try_from(whole).with_context(|| format!("quantity {text:?} is too large"))
}

fn parse(text: &str) -> Result<u128> {
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty())
        || fraction.contains('.')
        || whole.len() > 20
        || fraction.len() > 9
    {
        bail!("no number");
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len())?);
    let value = format!("0{whole}{fraction}").parse::<u128>()?;
    let (multiplier, divisor) = suffix_scale(suffix)?;
    let product = value.checked_mul(multiplier).context("too large")?;
    Ok(product.div_ceil(scale.checked_mul(divisor).context("too small")?))
}

/// Multiplier to thousandths, and divisor, of a suffix.
fn suffix_scale(suffix: &str) -> Result<(u128, u128)> {
    let decimal = |power: u32| (10_u128.pow(power + 3), 1);
    let binary = |power: u32| (1000_u128 << (10 * power), 1);
    Ok(match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1000),
        "m" => (1, 1),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        other => bail!("unknown suffix {other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantity_of_each_suffix_is_exact() {
        for (text, milli) in [
            ("500m", 500),
            ("1", 1000),
            ("1.5", 1500),
            ("2k", 2_000_000),
            ("1Ki", 1_024_000),
            ("1n", 1),
        ] {
            assert_eq!(parse_milli(text).expect("a quantity"), milli, "{text}");
        }
        assert_eq!(parse_whole("512Mi").expect("a quantity"), 512 << 20);
    }

    #[test]
    fn quantity_malformed_is_refused() {
        for text in [
            "",
            ".",
            "K",
            "1K",
            "-1",
            "1.2.3",
            "1 Mi",
            "99999999999999999999999999",
        ] {
            assert!(parse_milli(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn quantity_of_any_number_and_suffix_is_exact_or_refused(
            whole in prop_oneof![0..2000u64, any::<u64>()], thousandths in 0..1000u64,
            (suffix, unit) in prop::sample::select(vec![
                ("", 1u128), ("k", 1000), ("M", 1_000_000), ("E", 1_000_000_000_000_000_000), ("Ki", 1 << 10),
                ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ei", 1 << 60),
            ]),
        ) {
            let text = format!("{whole}.{thousandths:03}{suffix}");
            let milli = (u128::from(whole) * 1000 + u128::from(thousandths)).checked_mul(unit);
            match parse_milli(&text) {
                Ok(parsed) => prop_assert_eq!(Some(parsed), milli),
                Err(_) => prop_assert!(milli.is_none_or(|milli| milli > 1 << 110)),
            }
            let whole = milli.and_then(|milli| u64::try_from(milli.div_ceil(1000)).ok());
            prop_assert_eq!(parse_whole(&text).ok(), whole);
        }

        #[test]
        fn quantity_with_faults_never_panics(faults in hostile::faults(3), text in "[0-9]{1,12}(\\.[0-9]{1,9})?[numkMGTPEKi]{0,2}") {
            let mut bytes = text.into_bytes();
            hostile::damage(&mut bytes, &faults);
            let _ = parse_whole(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn quantity_of_any_text_never_panics(text in ".{0,40}") {
            let _ = parse_whole(&text);
        }
    }
}
