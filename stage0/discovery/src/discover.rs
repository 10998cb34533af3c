//! From a name to URLs: discovery pages are asked from the name itself upwards, until one knows it.

use anyhow::{Context, Result, bail};

use crate::client::{Client, Refused};
use crate::name::Name;
use crate::page::{Meta, metas};
use crate::template::render;

/// Bytes of a page.
const MAX_PAGE_BYTES: u64 = 1 << 20;

/// Where one image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The image.
    pub aci: String,
    /// Its signature.
    pub asc: String,
}

/// Where the image `name` is: of the first page that knows, the templates into which most labels go, in order.
///
/// # Errors
/// If no page knows.
pub fn image(client: &Client, name: &Name) -> Result<Vec<Endpoint>> {
    ask(client, name, "ac-discovery", |metas| best(metas, name))
}

/// Where the keys for images called `name` are.
///
/// # Errors
/// If no page knows.
pub fn keys(client: &Client, name: &Name) -> Result<Vec<String>> {
    ask(client, name, "ac-discovery-pubkeys", |metas| {
        metas.iter().map(|meta| meta.url.clone()).collect()
    })
}

fn ask<T>(
    client: &Client,
    name: &Name,
    kind: &str,
    choose: impl Fn(&[Meta]) -> Vec<T>,
) -> Result<Vec<T>> {
    let mut path = name.name.as_str();
    let mut reasons = Vec::new();
    loop {
        match page(client, path) {
            Ok(page) => {
                let mut found = metas(&page);
                found.retain(|meta| meta.kind == kind && meta.is_for(&name.name));
                let chosen = choose(&found);
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

fn best(metas: &[Meta], name: &Name) -> Vec<Endpoint> {
    let mut rendered: Vec<_> = metas
        .iter()
        .filter_map(|meta| {
            let aci = render(&meta.url, name, "aci")?;
            let asc = render(&meta.url, name, "aci.asc")?;
            Some((
                aci.labels,
                Endpoint {
                    aci: aci.url,
                    asc: asc.url,
                },
            ))
        })
        .collect();
    let most = rendered.iter().map(|(labels, _)| *labels).max();
    rendered.retain(|(labels, _)| Some(*labels) == most);
    rendered.into_iter().map(|(_, endpoint)| endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Vec<String> {
        let page = br#"
            <meta name="ac-discovery" content="example.com https://a/{os}/{name}-{version}.{ext}">
            <meta name="ac-discovery" content="example.com https://b/{os}/{name}-{version}.{ext}">
            <meta name="ac-discovery" content="example.com https://c/{os}/{name}-latest.{ext}">"#;
        let endpoints = best(&metas(page), &name.parse().unwrap());
        endpoints.into_iter().map(|endpoint| endpoint.asc).collect()
    }

    #[test]
    fn templates_with_most_labels_are_the_best() {
        let versioned = found("example.com/x:1,os=linux");
        assert_eq!(
            versioned,
            [
                "https://a/linux/example.com/x-1.aci.asc",
                "https://b/linux/example.com/x-1.aci.asc"
            ]
        );
        assert_eq!(
            found("example.com/x,os=linux"),
            ["https://c/linux/example.com/x-latest.aci.asc"]
        );
        assert!(found("example.com/x").is_empty());
    }
}
