//! From a name to URLs: discovery pages are asked from the name itself upwards, until one knows it.

use anyhow::{Context, Result, bail};

use crate::client::{Client, Refused};
use crate::name::Name;
use crate::page::{Endpoint, Page};

/// Bytes of a page.
const MAX_PAGE_BYTES: u64 = 1 << 20;

/// Where the image `name` is: of the first page that knows, the templates into which most labels go, in order.
///
/// # Errors
/// If no page knows.
pub fn image(client: &Client, name: &Name) -> Result<Vec<Endpoint>> {
    ask(client, name, "ac-discovery", |page| page.images(name))
}

/// Where the keys for images called `name` are.
///
/// # Errors
/// If no page knows.
pub fn keys(client: &Client, name: &Name) -> Result<Vec<String>> {
    ask(client, name, "ac-discovery-pubkeys", |page| page.keys(name))
}

fn ask<T>(
    client: &Client,
    name: &Name,
    kind: &str,
    choose: impl Fn(&Page) -> Vec<T>,
) -> Result<Vec<T>> {
    let mut path = name.name.as_str();
    let mut reasons = Vec::new();
    loop {
        match page(client, path) {
            Ok(page) => {
                let chosen = choose(&Page::read(&page));
                if !chosen.is_empty() {
                    return Ok(chosen);
                }
                reasons.push(format!("{path} has no {kind} for it"));
            }
            Err(error) if is_answer(&error) => reasons.push(format!("{path}: {error:#}")),
            // A host that cannot be reached cannot be reached for a shorter path either.
            Err(error) => return Err(error).with_context(|| format!("look for image {name}")),
        }
        match path.rsplit_once('/') {
            Some((parent, _)) => path = parent,
            None => bail!("nobody knows where image {name} is: {}", reasons.join("; ")),
        }
    }
}

fn page(client: &Client, path: &str) -> Result<Vec<u8>> {
    let get = |scheme: &str| {
        client.document(&format!("{scheme}://{path}?ac-discovery=1"), MAX_PAGE_BYTES)
    };
    match get("https") {
        Err(error) if client.access().http => {
            tracing::debug!("{error:#}");
            get("http")
        }
        got => got,
    }
}

fn is_answer(error: &anyhow::Error) -> bool {
    error
        .downcast_ref()
        .is_some_and(|Refused(status): &Refused| status.is_client_error())
}
