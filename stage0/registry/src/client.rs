//! Talks to one registry about one repository: requests with what authenticates them, and which scheme it speaks.
//!
//! Made by `Access`; used by several threads at once. OCI distribution-spec 1.1.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::blocking::{Client as Http, RequestBuilder, Response};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode};
use transfer::{Attempts, Cancel, Fault, Patience, is_distrust};

use crate::access::{Options, Verify};
use crate::answer::{self, Refusal};
use crate::auth::Applicant;
use crate::challenge::Challenge;
use crate::credentials::{self, Credentials};
use crate::endpoint::Endpoint;
use crate::tls::Certificates;

/// Redirects followed.
const MAX_REDIRECTS: usize = 5;

const USER_AGENT: &str = concat!("fairing/", env!("CARGO_PKG_VERSION"));

/// A repository that is talked about.
pub struct Client {
    http: Http,
    /// Follows no redirect; there where an identity token may be sent.
    unredirected: Option<Http>,
    scheme: &'static str,
    endpoint: Endpoint,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<HeaderValue>>,
    patience: Patience,
    trusting: bool,
}

/// A document with the type that the registry says it is of.
pub struct Typed {
    pub bytes: Vec<u8>,
    pub media_type: String,
}

impl Client {
    /// Finds out how `endpoint` is talked to.
    ///
    /// # Errors
    /// If certificates or logins cannot be read, or where that must be asked, the host cannot be reached.
    pub fn open(endpoint: Endpoint, options: &Options) -> Result<Self> {
        let trusting = options.verify == Verify::No
            || (options.verify == Verify::Configured && endpoint.insecure);
        let credentials = match &options.credentials {
            Some(credentials) => Some(credentials.clone()),
            None => credentials::find(&endpoint.reference, options.authfile.as_deref(), |name| {
                std::env::var_os(name)
            })?,
        };
        let identified = matches!(credentials, Some(Credentials::Identity(_)));
        let unredirected = || http(&endpoint, options, trusting, Policy::none());
        let mut client = Self {
            unredirected: identified.then(unredirected).transpose()?,
            http: http(&endpoint, options, trusting, redirects(trusting))?,
            scheme: "https",
            endpoint,
            credentials,
            authorization: Mutex::default(),
            patience: options.patience.clone(),
            trusting,
        };
        let loopback = options.verify == Verify::Configured && client.endpoint.is_loopback();
        if trusting || loopback {
            client.scheme = client.spoken()?;
        }
        Ok(client)
    }

    /// Which scheme the host speaks: TLS, or else plain text; not plain text where its certificate is the matter.
    fn spoken(&self) -> Result<&'static str> {
        let host = self.endpoint.api_host();
        let ask = |scheme| self.http.get(format!("{scheme}://{host}/v2/")).send();
        let tls = match ask("https") {
            Ok(_) => return Ok("https"),
            Err(error) if is_distrust(&error) => {
                return Err(Fault::from(error).into_error()).context(advice(host));
            }
            Err(error) => Fault::from(error).into_error(),
        };
        ask("http").map(|_| "http").map_err(|error| {
            let plain = Fault::from(error).into_error();
            anyhow!("{host} is reached neither by TLS ({tls:#}) nor without ({plain:#})")
        })
    }

    /// The repository asked.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How long it is waited for.
    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    /// The address of something of the repository.
    pub fn address(&self, path: &str) -> String {
        format!(
            "{}://{}/v2/{}/{path}",
            self.scheme,
            self.endpoint.api_host(),
            self.endpoint.reference.repository()
        )
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.endpoint.api_host())
    }

    /// A request, not sent.
    pub fn request(&self, method: Method, address: &str) -> RequestBuilder {
        self.http.request(method, address)
    }

    /// Sends what `build` makes, once more where a challenge must be answered first.
    ///
    /// # Errors
    /// If there is no answer, or it is not one of success.
    pub fn send(&self, build: &dyn Fn() -> Result<RequestBuilder>) -> Result<Response, Fault> {
        let mut response = self.attempt(build)?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(header) = self.answer(&response)?
        {
            *self.lock() = Some(header);
            response = self.attempt(build)?;
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let who = format!("registry {}", self.endpoint.reference.host());
        Err(answer::refusal(response, &who, &self.patience))
    }

    fn attempt(&self, build: &dyn Fn() -> Result<RequestBuilder>) -> Result<Response, Fault> {
        let mut request = build()?;
        if let Some(header) = self.lock().clone() {
            request = request.header(AUTHORIZATION, header);
        }
        request.send().map_err(|error| {
            let distrusted = is_distrust(&error);
            match Fault::from(error) {
                Fault::Lasting(error) if distrusted => {
                    Fault::Lasting(error.context(advice(self.endpoint.reference.host())))
                }
                fault => fault,
            }
        })
    }

    fn answer(&self, response: &Response) -> Result<Option<HeaderValue>, Fault> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE).into_iter();
        let Some(challenge) = Challenge::best(headers.filter_map(|header| header.to_str().ok()))
        else {
            return Ok(None);
        };
        let applicant = Applicant {
            http: &self.http,
            unredirected: self.unredirected.as_ref(),
            credentials: self.credentials.as_ref(),
            patience: &self.patience,
            scope: format!("repository:{}:pull", self.endpoint.reference.repository()),
            tls_only: self.scheme == "https" && !self.trusting,
        };
        applicant.answer(&challenge)
    }

    /// The document at `path`, of at most `limit_bytes`.
    ///
    /// # Errors
    /// If it cannot be had, after a few attempts.
    pub fn document(
        &self,
        path: &str,
        accept: &str,
        limit_bytes: u64,
        cancel: &Cancel,
    ) -> Result<Typed> {
        let address = self.address(path);
        Attempts::new(&self.patience, cancel).persist(|| {
            let response =
                self.send(&|| Ok(self.request(Method::GET, &address).header(ACCEPT, accept)))?;
            let media_type = response.headers().get(CONTENT_TYPE);
            let media_type = media_type.and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().split(';').next();
            Ok(Typed {
                media_type: media_type.unwrap_or_default().trim().to_owned(),
                bytes: transfer::read(response, limit_bytes, &self.patience)?,
            })
        })
    }

    /// What a server of no registry has at `url`, at most `limit_bytes`; it is shown no login.
    ///
    /// # Errors
    /// If it cannot be had, after a few attempts; that it is not there is no error.
    pub fn elsewhere(&self, url: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        let cancel = Cancel::default();
        if_any(Attempts::new(&self.patience, &cancel).persist(|| {
            let response = self.http.get(url).send()?;
            if !response.status().is_success() {
                return Err(answer::refusal(response, "the server", &self.patience));
            }
            transfer::read(response, limit_bytes, &self.patience)
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HeaderValue>> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was asked for, or `None` if it is not there.
///
/// # Errors
/// Any other that asking for it had.
pub fn if_any<T>(asked: Result<T>) -> Result<Option<T>> {
    match asked {
        Err(error) => match error.downcast_ref::<Refusal>() {
            Some(refusal) if refusal.status == StatusCode::NOT_FOUND => Ok(None),
            _ => Err(error),
        },
        Ok(found) => Ok(Some(found)),
    }
}

fn advice(host: &str) -> String {
    format!(
        "{host} is not trusted (give its authority by --cert-dir or in /etc/containers/certs.d/{host}, or do without by \
         --tls-verify=false)"
    )
}

fn http(endpoint: &Endpoint, options: &Options, trusting: bool, redirects: Policy) -> Result<Http> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let certificates = Certificates::load(
        options.cert_dir.as_deref(),
        endpoint.reference.host(),
        home.as_deref(),
    )?;
    let patience = &options.patience;
    let mut builder = Http::builder()
        .tls_backend_preconfigured(certificates.client_config(!trusting)?)
        .user_agent(USER_AGENT)
        .referer(false)
        .connect_timeout(patience.connect)
        .timeout(patience.answer)
        .redirect(redirects);
    if endpoint.is_loopback() {
        builder = builder.no_proxy();
    }
    builder.build().context("make an HTTP client")
}

/// A few, and from TLS to plain text none.
fn redirects(trusting: bool) -> Policy {
    Policy::custom(move |attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error(format!("more than {MAX_REDIRECTS} redirects"));
        }
        let from_tls = attempt.previous().iter().any(|url| url.scheme() == "https");
        if from_tls && attempt.url().scheme() != "https" && !trusting {
            return attempt.error("a redirect leads from TLS to plain text");
        }
        attempt.follow()
    })
}

/// Refuses a registry's word for a place on another host or scheme than its own where that would be given secrets.
pub fn same_origin(location: &str, origin: &str) -> Result<()> {
    let rest = location.strip_prefix(origin);
    if !rest.is_some_and(|rest| rest.starts_with(['/', '?'])) {
        bail!("the registry sends uploads elsewhere: to {location:?}");
    }
    Ok(())
}
