//! What a registry answers: bounded in size and pace, and what it says when it refuses.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use anyhow::Error;
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::RETRY_AFTER;
use serde::Deserialize;

use crate::patience::Patience;
use crate::retry::Fault;

/// Bytes read of an answer that refuses.
const MAX_REFUSAL_BYTES: u64 = 16 << 10;
/// Characters shown of it.
const MAX_REFUSAL_CHARS: usize = 300;

/// Reads no slower than is allowed.
pub struct Paced<'a, R> {
    inner: R,
    patience: &'a Patience,
    begun: Instant,
    bytes: u64,
}

impl<'a, R> Paced<'a, R> {
    /// Reads from `inner`.
    pub fn new(inner: R, patience: &'a Patience) -> Self {
        Self {
            inner,
            patience,
            begun: Instant::now(),
            bytes: 0,
        }
    }
}

impl<R: Read> Read for Paced<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if count > 0 && self.begun.elapsed() > self.patience.pace {
            if self.bytes < self.patience.least_bytes {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("it sent {} bytes in {:?}", self.bytes, self.patience.pace),
                ));
            }
            self.begun = Instant::now();
            self.bytes = 0;
        }
        Ok(count)
    }
}

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

/// The fault of an answer that cannot be read on.
pub fn broken(error: &io::Error) -> Fault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let inner = inner.map(|inner: &reqwest::Error| source_of(inner).to_string());
    Fault::passing(format!(
        "the answer breaks off: {}",
        inner.unwrap_or_else(|| error.to_string())
    ))
}

/// The cause at the end of the chain: what reqwest says around it names the link.
fn source_of(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// An answer without success.
#[derive(Debug)]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refusal {}

/// The fault that an answer without success means, in the registry's own words.
pub fn refusal(response: Response, who: &str, patience: &Patience) -> Fault {
    let status = response.status();
    let asked = retry_after(&response);
    let mut body = Vec::new();
    let mut reader = Paced::new(response, patience).take(MAX_REFUSAL_BYTES);
    // What has come of it before it broke off is worth showing, too.
    let _ = reader.read_to_end(&mut body);
    let said = said(&body).map_or_else(String::new, |said| format!(": {said}"));
    let error = Error::new(Refusal {
        status,
        text: format!("{who} answers {status}{said}{}", advice(status)),
    });
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Fault::Passing(error, asked),
        status if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => {
            Fault::Passing(error, asked)
        }
        _ => Fault::Lasting(error),
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let header = response.headers().get(RETRY_AFTER)?;
    let seconds = header.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; it may want a login, by `podman login`, `docker login` or --creds, or the image may not exist"
        }
        StatusCode::TOO_MANY_REQUESTS => "; wait, or log in to be allowed more",
        _ => "",
    }
}

/// Errors as the distribution specification has them.
#[derive(Deserialize)]
struct Reasons {
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What login servers answer.
#[derive(Deserialize)]
struct Detail {
    #[serde(alias = "error_description", alias = "message")]
    details: String,
}

/// The words of an answer, fit for a terminal; `None` for what is not for people.
fn said(body: &[u8]) -> Option<String> {
    let text = if let Ok(refusal) = serde_json::from_slice::<Reasons>(body) {
        let reasons = refusal.errors.iter().take(3);
        let reasons: Vec<_> = reasons
            .map(
                |Reason { code, message }| match (code.is_empty(), message.is_empty()) {
                    (false, false) => format!("{code} ({message})"),
                    _ => format!("{code}{message}"),
                },
            )
            .collect();
        reasons.join(", ")
    } else if let Ok(detail) = serde_json::from_slice::<Detail>(body) {
        detail.details
    } else {
        let text = String::from_utf8_lossy(body);
        if text.trim_start().starts_with(['<', '{', '[']) {
            return None;
        }
        text.trim().to_owned()
    };
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let shown: String = text.chars().take(MAX_REFUSAL_CHARS).map(plain).collect();
    (!shown.is_empty()).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_shown_in_the_registrys_words() {
        for (body, shown) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                Some("MANIFEST_UNKNOWN (manifest unknown)"),
            ),
            (
                r#"{"errors":[{"code":"DENIED"},{"message":"no"}]}"#,
                Some("DENIED, no"),
            ),
            (
                r#"{"details":"incorrect username or password"}"#,
                Some("incorrect username or password"),
            ),
            (
                "too many\u{1b}[31m requests\r\n",
                Some("too many [31m requests"),
            ),
            ("<html>gone</html>", None),
            ("", None),
        ] {
            assert_eq!(said(body.as_bytes()).as_deref(), shown, "{body}");
        }
        let long = "x".repeat(10_000);
        assert_eq!(said(long.as_bytes()).unwrap().len(), MAX_REFUSAL_CHARS);
    }

    #[test]
    fn trickle_is_refused_once_its_time_is_over() {
        let patience = Patience {
            pace: Duration::ZERO,
            least_bytes: 10,
            ..Patience::default()
        };
        let mut paced = Paced::new(&b"x"[..], &patience);
        assert!(paced.read(&mut [0; 8]).is_err());
    }
}
