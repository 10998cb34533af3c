//! The HTTP client: what it asks, how long it waits, whom it believes.
//!
//! One for a command. Proxies are those of the environment, certificate authorities those of the host.

use std::fmt;

use anyhow::{Context, Result, bail};
use reqwest::StatusCode;
use reqwest::Url;
use reqwest::blocking::{RequestBuilder, Response};
use reqwest::redirect::{Attempt, Policy};
use transfer::{Attempts, Cancel, Fault, Patience, retry_after};

/// Redirects followed from one URL.
const MAX_REDIRECTS: usize = 10;

/// What `--insecure-options` and flags allow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// Unencrypted HTTP.
    pub http: bool,
    /// Servers whose certificates nobody vouches for.
    pub any_certificate: bool,
}

/// A client that is ready to ask.
pub struct Client {
    client: reqwest::blocking::Client,
    access: Access,
    patience: Patience,
}

/// An answer that is none, with its status.
#[derive(Debug)]
pub struct Refused(pub StatusCode);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}", self.0)
    }
}

impl std::error::Error for Refused {}

impl Client {
    /// A client that may do what `access` says, and waits so long.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(access: Access, patience: Patience) -> Result<Self> {
        // Another part of the program may have chosen the same before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::blocking::Client::builder()
            .user_agent(concat!("fairing/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(patience.connect)
            .timeout(patience.answer)
            .redirect(Policy::custom(move |attempt| follow(attempt, access)))
            .referer(false)
            .danger_accept_invalid_certs(access.any_certificate)
            .build()
            .context("set up the HTTP client")?;
        Ok(Self {
            client,
            access,
            patience,
        })
    }

    /// How long it waits.
    pub(crate) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// What it may do.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The document at `url`, of at most `limit` bytes.
    ///
    /// # Errors
    /// If it cannot be had, or is larger or slower than allowed.
    pub fn document(&self, url: &str, limit: u64) -> Result<Vec<u8>> {
        let cancel = Cancel::default();
        let attempts = Attempts::new(&self.patience, &cancel);
        let got = attempts.persist(|| {
            let response = self.send(url, |request| request)?;
            if response.status() != StatusCode::OK {
                return Err(refused(&response));
            }
            transfer::read(response, limit, &self.patience)
        });
        got.with_context(|| format!("fetch {url}"))
    }

    /// Asks for `url`, the request completed by `more`.
    pub(crate) fn send(
        &self,
        url: &str,
        more: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Fault> {
        let parsed = Url::parse(url).with_context(|| format!("{url:?} is no URL"))?;
        self.check(&parsed)?;
        Ok(more(self.client.get(parsed)).send()?)
    }

    fn check(&self, url: &Url) -> Result<()> {
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.access.http => Ok(()),
            "http" => bail!("plain HTTP is not used; --insecure-options=http allows it"),
            other => bail!("the scheme {other} is not supported; https, http and file are"),
        }
    }
}

/// The fault of an answer that brings nothing.
pub(crate) fn refused(response: &Response) -> Fault {
    let error = Refused(response.status()).into();
    Fault::answered(response.status(), retry_after(response), error)
}

fn follow(attempt: Attempt<'_>, access: Access) -> reqwest::redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(format!("more than {MAX_REDIRECTS} redirects"));
    }
    if attempt.url().scheme() != "https" && !access.http {
        let to = attempt.url().clone();
        return attempt.error(format!(
            "a redirect to {to}, which is not HTTPS; --insecure-options=http allows it"
        ));
    }
    attempt.follow()
}
