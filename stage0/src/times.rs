//! Points in time as `list` and `status` print them, in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// `2026-01-31 23:59:59.123 +0000 UTC`, as rkt prints it.
pub fn utc(time: SystemTime) -> String {
    let since = since_epoch(time);
    let (year, month, day) = date(since.as_secs() / DAY);
    let second = since.as_secs() % DAY;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:03} +0000 UTC",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

/// Nanoseconds since 1970, as rkt's JSON has them.
pub fn nanoseconds(time: SystemTime) -> u128 {
    since_epoch(time).as_nanos()
}

/// How long ago, in one unit: `3 minutes ago`.
pub fn ago(time: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(time).unwrap_or_default().as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..DAY => (seconds / 3600, "hour"),
        _ => (seconds / DAY, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01 on, leap days are the last of a year and 400 years are 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_known_days_is_written() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00.000 +0000 UTC"),
            (951_782_399, "2000-02-28 23:59:59.000 +0000 UTC"),
            (951_782_400, "2000-02-29 00:00:00.000 +0000 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59.000 +0000 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00.000 +0000 UTC"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn time_ago_is_in_one_unit() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (seconds, expected) in [
            (1, "1 second ago"),
            (7300, "2 hours ago"),
            (90_000, "1 day ago"),
        ] {
            assert_eq!(ago(now - Duration::from_secs(seconds), now), expected);
        }
    }
}
