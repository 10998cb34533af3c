//! Signals by name or number, as kill(1), docker and image configurations spell them.

use anyhow::{Context, Result};

/// Signals to a pod's process that reach its apps: HUP, INT, QUIT, USR1, USR2, TERM.
pub const PASSED_ON: [i32; 6] = [1, 2, 3, 10, 12, 15];

/// The first of the real-time signals, as C libraries count them.
const REALTIME_FIRST: i32 = 34;

/// The last signal there is.
const LAST: i32 = 64;

/// Signals 1 to 31, in order.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of a signal: of `15`, `TERM`, `sigterm`, `SIGRTMIN+3`, `RTMAX-1`.
///
/// # Errors
/// If there is no such signal.
pub fn parse(text: &str) -> Result<i32> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |text: &str| match text {
        "" => Some(0),
        _ => text.parse::<i32>().ok(),
    };
    let number = if let Some(after) = name.strip_prefix("RTMIN") {
        offset(after).and_then(|offset| offset.checked_add(REALTIME_FIRST))
    } else if let Some(after) = name.strip_prefix("RTMAX") {
        offset(after).and_then(|offset| offset.checked_add(LAST))
    } else if let Some(index) = NAMES.iter().position(|known| *known == name) {
        i32::try_from(index + 1).ok()
    } else {
        name.parse().ok()
    };
    number
        .filter(|number| (1..=31).contains(number) || (REALTIME_FIRST..=LAST).contains(number))
        .with_context(|| format!("there is no signal {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn signals_have_names_numbers_and_places_among_the_real_time_ones() {
        let table = [
            ("SIGTERM", 15),
            ("quit", 3),
            ("9", 9),
            ("SIGSYS", 31),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("RTMIN", 34),
        ];
        for (text, number) in table {
            assert_eq!(parse(text).expect("a signal"), number, "{text}");
        }
        for wrong in [
            "", "SIG", "0", "33", "65", "TERMX", "RTMIN-1", "RTMAX+1", "-9",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
