//! Answers a registry's challenge: a password for itself, or a token that a login server gives for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::blocking::{Client as Http, RequestBuilder};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use transfer::{Fault, Patience};

use crate::answer;
use crate::challenge::Challenge;
use crate::credentials::Credentials;

/// Largest answer of a login server, in bytes.
const MAX_TOKEN_BYTES: u64 = 256 << 10;

/// What login servers know this program by.
const CLIENT_ID: &str = "fairing";

/// Who asks for leave, and for what.
pub struct Applicant<'a> {
    pub http: &'a Http,
    /// For an identity token, which is in what is sent: a redirect would take it elsewhere.
    pub unredirected: Option<&'a Http>,
    pub credentials: Option<&'a Credentials>,
    pub patience: &'a Patience,
    /// What the token must allow where the registry does not say.
    pub scope: String,
    /// Secrets must not go in plain text.
    pub tls_only: bool,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Applicant<'_> {
    /// The header that answers `challenge`; `None` if there are no credentials for it.
    ///
    /// # Errors
    /// If the login server refuses, or is not to be trusted.
    pub fn answer(&self, challenge: &Challenge) -> Result<Option<HeaderValue>, Fault> {
        let text = match challenge {
            Challenge::Basic => match self.credentials {
                Some(Credentials::Password(user, password)) => basic(user, password),
                _ => return Ok(None),
            },
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                let scope = scope.as_deref().unwrap_or(&self.scope);
                let token = self.token(realm, service.as_deref(), scope)?;
                format!("Bearer {token}")
            }
        };
        header(&text).map(Some)
    }

    fn token(&self, realm: &str, service: Option<&str>, scope: &str) -> Result<String, Fault> {
        let mut url: Url = realm
            .parse()
            .map_err(|_| Fault::lasting(format!("{realm:?} is no address of a login server")))?;
        let trusted = url.scheme() == "https" || (url.scheme() == "http" && !self.tls_only);
        if !trusted {
            return Err(Fault::lasting(format!(
                "login server {realm:?} is not reached by TLS as its registry is"
            )));
        }
        let who = format!("login server {}", url.host_str().unwrap_or_default());
        let request = match (self.credentials, self.unredirected) {
            (Some(Credentials::Identity(identity)), Some(http)) => {
                exchange(http, &url, service, scope, identity)
            }
            (credentials, _) => {
                let mut query = url.query_pairs_mut();
                query.extend_pairs(service.map(|service| ("service", service)));
                for scope in scope.split(' ').filter(|scope| !scope.is_empty()) {
                    query.append_pair("scope", scope);
                }
                drop(query);
                let request = self.http.get(url);
                match credentials {
                    Some(Credentials::Password(user, password)) => {
                        request.header(AUTHORIZATION, header(&basic(user, password))?)
                    }
                    _ => request,
                }
            }
        };
        let response = request.send()?;
        if !response.status().is_success() {
            return Err(answer::refusal(response, &who, self.patience));
        }
        let bytes = transfer::read(response, MAX_TOKEN_BYTES, self.patience)?;
        let token: Token = image::oci::parse(&bytes, &format!("the answer of {who}"))?;
        match (token.token, token.access_token) {
            (token, _) if !token.is_empty() => Ok(token),
            (_, token) if !token.is_empty() => Ok(token),
            _ => Err(Fault::lasting(format!("{who} gives no token"))),
        }
    }
}

/// Asks by an identity token, as OAuth 2 has it (RFC 6749 section 6).
fn exchange(
    http: &Http,
    url: &Url,
    service: Option<&str>,
    scope: &str,
    identity: &str,
) -> RequestBuilder {
    // The encoder of queries is the one of forms.
    let mut form = url.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", CLIENT_ID)
        .append_pair("service", service.unwrap_or_default())
        .append_pair("scope", scope)
        .append_pair("refresh_token", identity);
    http.post(url.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.query().unwrap_or_default().to_owned())
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn header(text: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Fault::lasting("a token holds characters that no header can"))?;
    value.set_sensitive(true);
    Ok(value)
}
