//! The HTTP client: what it asks, how long it waits, whom it believes.
//!
//! One for a command. Proxies are those of the environment, certificate authorities those of the host.

use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::StatusCode;
use reqwest::Url;
use reqwest::blocking::{RequestBuilder, Response};
use reqwest::redirect::{Attempt, Policy};

/// Until a connection is there.
const CONNECT: Duration = Duration::from_secs(15);
/// Until an answer begins, and between two pieces of it.
const ANSWER: Duration = Duration::from_secs(30);
/// For all of a small document.
const DOCUMENT: Duration = Duration::from_secs(60);
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
    /// A client that may do what `access` says.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(access: Access) -> Result<Self> {
        // Another part of the program may have chosen the same before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::blocking::Client::builder()
            .user_agent(concat!("fairing/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .redirect(Policy::custom(move |attempt| follow(attempt, access)))
            .referer(false)
            .danger_accept_invalid_certs(access.any_certificate)
            .build()
            .context("set up the HTTP client")?;
        Ok(Self { client, access })
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
        let get = || -> Result<Vec<u8>> {
            let deadline = Instant::now() + DOCUMENT;
            let mut response = self.send(url, |request| request)?;
            if response.status() != StatusCode::OK {
                return Err(Refused(response.status()).into());
            }
            read_bounded(&mut response, limit, deadline)
        };
        get().with_context(|| format!("fetch {url}"))
    }

    /// Asks for `url`, the request completed by `more`.
    pub(crate) fn send(
        &self,
        url: &str,
        more: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let parsed = Url::parse(url).with_context(|| format!("{url:?} is no URL"))?;
        self.check(&parsed)?;
        more(self.client.get(parsed)).send().map_err(plain)
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

/// An error of the client with all its causes, but without the URL, which ours have.
pub(crate) fn plain(error: reqwest::Error) -> anyhow::Error {
    anyhow::Error::from(error.without_url())
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

fn read_bounded(reader: &mut impl Read, limit: u64, deadline: Instant) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let count = reader.read(&mut buffer).context("receive")?;
        if count == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&buffer[..count]);
        ensure!(
            bytes.len() as u64 <= limit,
            "it has more than {limit} bytes"
        );
        ensure!(
            Instant::now() < deadline,
            "it takes more than {} seconds",
            DOCUMENT.as_secs()
        );
    }
}
