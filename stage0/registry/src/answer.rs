//! What a registry says when it refuses.

use std::io::Read;

use anyhow::Error;
use reqwest::StatusCode;
use reqwest::blocking::Response;
use serde::Deserialize;
use transfer::{Fault, Paced, Patience, retry_after};

/// Bytes read of an answer that refuses.
const MAX_REFUSAL_BYTES: u64 = 16 << 10;
/// Characters shown of it.
const MAX_REFUSAL_CHARS: usize = 300;

/// An answer without success.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    text: String,
}

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
    Fault::answered(status, asked, error)
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
}
