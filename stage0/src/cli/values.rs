//! Readers of flag values that several commands share.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use contract::image::Variable;
use contract::quantity;
use humantime::parse_rfc3339_weak;

/// How `list`, `status` and `image` print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line of JSON.
    Json,
    /// JSON to read.
    JsonPretty,
}

impl Format {
    /// Prints a value on stdout.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn print(self, value: &impl serde::Serialize) -> Result<()> {
        let text = match self {
            Self::Json => serde_json::to_string(value)?,
            Self::JsonPretty => serde_json::to_string_pretty(value)?,
        };
        crate::print_line(&text)
    }
}

/// `NAME=VALUE`; `NAME` alone takes the caller's value.
pub(super) fn variable(text: &str) -> Result<Variable> {
    if text.contains('=') {
        return assignment(text);
    }
    let value =
        std::env::var(text).with_context(|| format!("pass environment variable {text:?} on"))?;
    Ok(Variable {
        name: checked_name(text)?,
        value,
    })
}

/// `NAME=VALUE` with a name that can be an environment variable's.
pub(super) fn assignment(text: &str) -> Result<Variable> {
    let (name, value) = key_value(text)?;
    Ok(Variable {
        name: checked_name(&name)?,
        value,
    })
}

fn checked_name(name: &str) -> Result<String> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let rest = |c: char| first(c) || c.is_ascii_digit() || c == '.' || c == '-';
    if !name.starts_with(first) || !name.chars().all(rest) {
        bail!("{name:?} cannot be the name of an environment variable");
    }
    Ok(name.to_owned())
}

/// `NAME=VALUE`.
pub(super) fn key_value(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => bail!("expected NAME=VALUE"),
    }
}

/// A signal by name or number.
///
/// # Errors
/// If there is no such signal.
pub fn signal(text: &str) -> Result<i32> {
    contract::signal::parse(text)
}

/// An appc quantity of bytes.
///
/// # Errors
/// For no quantity, zero, and what looks like docker's mebibytes.
pub fn quantity_bytes(text: &str) -> Result<String> {
    if text.ends_with('m') {
        bail!("the suffix m means thousandths; mebibytes are Mi, megabytes M");
    }
    if quantity::parse_whole(text)? == 0 {
        bail!("it must be more than zero");
    }
    Ok(text.to_owned())
}

/// An appc quantity of CPU cores.
pub(super) fn quantity_cores(text: &str) -> Result<String> {
    if quantity::parse_milli(text)? == 0 {
        bail!("it must be more than zero");
    }
    Ok(text.to_owned())
}

/// A duration as `90` (seconds), `1.5s`, `200ms` or `1h30m`.
///
/// # Errors
/// For anything else.
pub fn parse_duration(text: &str) -> Result<Duration> {
    parse_parts(text)
        .with_context(|| format!("read duration {text:?} (as in 90, 1.5s, 10m, 1h30m)"))
}

fn parse_parts(text: &str) -> Result<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    loop {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_seconds = match unit {
            "" | "s" => 1.0,
            "ms" => 0.001,
            "m" => 60.0,
            "h" => 3600.0,
            other => bail!("unknown unit {other:?}"),
        };
        let seconds = number.parse::<f64>()? * unit_seconds;
        total = total
            .checked_add(Duration::try_from_secs_f64(seconds)?)
            .context("too long")?;
        if tail.is_empty() {
            return Ok(total);
        }
        rest = tail;
    }
}

/// A time, or how long ago it was.
pub fn time(text: &str) -> Result<SystemTime> {
    if let Ok(time) = parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let ago: Duration = parse_duration(text)?;
    SystemTime::now()
        .checked_sub(ago)
        .with_context(|| format!("{text} ago is too long ago"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_of_each_shape_is_read() -> Result<()> {
        for (text, milliseconds) in [
            ("90", 90_000),
            ("1.5s", 1500),
            ("200ms", 200),
            ("1h30m", 5_400_000),
            ("0", 0),
        ] {
            assert_eq!(
                parse_duration(text)?,
                Duration::from_millis(milliseconds),
                "{text}"
            );
        }
        Ok(())
    }

    #[test]
    fn duration_malformed_is_refused() {
        for text in [
            "",
            "s",
            "1x",
            "-1",
            "1e400",
            "1..2",
            "999999999999999999999h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_with_dockers_suffix_is_refused_with_the_right_one() {
        let error = quantity_bytes("512m").expect_err("thousandths of bytes");
        assert!(error.to_string().contains("Mi"));
        assert!(quantity_bytes("512Mi").is_ok());
    }

    #[test]
    fn variable_with_an_impossible_name_is_refused() {
        for text in ["=x", "1A=x", "A B=x"] {
            assert!(assignment(text).is_err(), "{text}");
        }
        assert_eq!(assignment("A=b=c").expect("a variable").value, "b=c");
    }
}
