//! How long an answer need not be asked for again (RFC 9111, section 5.2.2). Pure.

use std::time::Duration;

use reqwest::header::{CACHE_CONTROL, HeaderMap};

/// Longest time for which an answer is believed to be current.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long an answer with these headers is current; `None` if they say nothing. What has to be asked for again each time is
/// current for no time, and so is what is not understood.
pub fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).into_iter();
    let lines: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    let told = lines.join(",").to_ascii_lowercase();
    let mut directives = told
        .split(',')
        .map(str::trim)
        .filter(|told| !told.is_empty());
    directives.clone().next()?;
    let seconds = directives
        .clone()
        .find_map(|told| told.strip_prefix("max-age="));
    let asks = directives.any(|told| {
        let name = told.split('=').next().unwrap_or(told);
        matches!(name, "no-cache" | "no-store")
    });
    let seconds = seconds
        .filter(|_| !asks)
        .and_then(|seconds| seconds.parse().ok());
    Some(Duration::from_secs(seconds.unwrap_or_default()).min(MAX_AGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_of_each_answer_is_read() {
        for (lines, seconds) in [
            (&[][..], None),
            (&[""], None),
            (&["public"], Some(0)),
            (&["max-age=60"], Some(60)),
            (&["public, Max-Age=60, must-revalidate"], Some(60)),
            (&["must-revalidate", "max-age=60"], Some(60)),
            (&["max-age=60", "no-cache"], Some(0)),
            (&["no-cache=\"set-cookie\", max-age=60"], Some(0)),
            (&["no-store,max-age=60"], Some(0)),
            (&["max-age=-1"], Some(0)),
            (&["max-age=\"60\""], Some(0)),
            (&["s-maxage=60"], Some(0)),
            (&["max-age=99999999999999999999"], Some(0)),
            (&["max-age=9999999999"], Some(7 * 24 * 3600)),
        ] {
            let mut told = HeaderMap::new();
            for line in lines {
                told.append(CACHE_CONTROL, line.parse().unwrap());
            }
            assert_eq!(max_age(&told), seconds.map(Duration::from_secs), "{told:?}");
        }
    }
}
