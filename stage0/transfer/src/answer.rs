//! What an answer says of itself, and the whole of a small one.

use std::io::Read;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::{CONTENT_RANGE, HeaderMap, RETRY_AFTER};

use crate::pace::{Paced, broken};
use crate::patience::Patience;
use crate::retry::Fault;

/// The whole of an answer.
///
/// # Errors
/// If it is longer than `limit_bytes`, breaks off or takes too long.
pub fn read(response: Response, limit_bytes: u64, patience: &Patience) -> Result<Vec<u8>, Fault> {
    let promised = response.content_length();
    let mut bytes = Vec::new();
    let mut reader = Paced::new(response, patience).take(limit_bytes.saturating_add(1));
    match reader.read_to_end(&mut bytes) {
        _ if bytes.len() as u64 > limit_bytes => {}
        Ok(_) if promised.is_none_or(|promised| promised == bytes.len() as u64) => {
            return Ok(bytes);
        }
        Ok(_) => return Err(Fault::passing("the answer breaks off")),
        Err(error) => return Err(broken(&error)),
    }
    Err(Fault::lasting(format!(
        "the answer has more than the {limit_bytes} bytes allowed"
    )))
}

/// Whether who answers so may answer otherwise before long.
pub(crate) fn passes(status: StatusCode) -> bool {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => true,
        status => status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED,
    }
}

/// How long it asks to be left alone.
pub fn retry_after(response: &Response) -> Option<Duration> {
    let header = response.headers().get(RETRY_AFTER)?;
    let seconds = header.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether an answer's `Content-Range` says that it begins at byte `from`.
pub fn begins_at(headers: &HeaderMap, from: u64) -> bool {
    let range = headers
        .get(CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    range
        .and_then(|range| range.strip_prefix("bytes "))
        .and_then(|range| range.split_once('-'))
        .is_some_and(|(first, _)| first.parse() == Ok(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_that_begins_elsewhere_is_not_taken() {
        let headers = |range: &'static str| {
            HeaderMap::from_iter([(CONTENT_RANGE, range.parse().expect("a header"))])
        };
        assert!(begins_at(&headers("bytes 7-9/10"), 7));
        assert!(!begins_at(&HeaderMap::new(), 7));
        for range in ["bytes 0-9/10", "bytes */10", "7-9"] {
            assert!(!begins_at(&headers(range), 7), "{range:?}");
        }
    }
}
