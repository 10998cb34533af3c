//! A discovery page: its `meta` elements, and what they say about an image. Pure; the tokenizer takes whatever a browser would.

use html5gum::{Token, Tokenizer};

use crate::name::Name;
use crate::template::render;

/// Elements taken of one page.
const MAX_ELEMENTS: usize = 256;

/// Where one image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The image.
    pub aci: String,
    /// Its signature.
    pub asc: String,
}

/// What a web server says of images and keys.
#[derive(Clone, Debug)]
pub struct Page(Vec<Meta>);

impl Page {
    /// Reads a page, whatever it is.
    pub fn read(bytes: &[u8]) -> Self {
        Self(metas(bytes))
    }

    /// Where the image `name` is: by the templates into which most labels go, in order.
    pub fn images(&self, name: &Name) -> Vec<Endpoint> {
        let rendered = self.about(name, "ac-discovery").filter_map(|meta| {
            let aci = render(&meta.url, name, "aci")?;
            let asc = render(&meta.url, name, "aci.asc")?;
            let endpoint = Endpoint {
                aci: aci.url,
                asc: asc.url,
            };
            Some((aci.labels, endpoint))
        });
        let mut rendered: Vec<_> = rendered.collect();
        let most = rendered.iter().map(|(labels, _)| *labels).max();
        rendered.retain(|(labels, _)| Some(*labels) == most);
        rendered.into_iter().map(|(_, endpoint)| endpoint).collect()
    }

    /// Where the keys for images called `name` are.
    pub fn keys(&self, name: &Name) -> Vec<String> {
        let about = self.about(name, "ac-discovery-pubkeys");
        about.map(|meta| meta.url.clone()).collect()
    }

    fn about<'a>(&'a self, name: &'a Name, kind: &'a str) -> impl Iterator<Item = &'a Meta> {
        let metas = self.0.iter();
        metas.filter(move |meta| meta.kind == kind && meta.is_for(&name.name))
    }
}

/// `<meta name="…" content="PREFIX URL">`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Meta {
    /// `ac-discovery` or `ac-discovery-pubkeys`.
    kind: String,
    /// Images whose names begin so are meant.
    prefix: String,
    /// A template, or the URL of keys.
    url: String,
}

impl Meta {
    /// Whether it is about an image called `name`: by whole parts, since `example.com/a` is not `example.com/ab`.
    fn is_for(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// All elements of `page` for discovery, in order.
fn metas(page: &[u8]) -> Vec<Meta> {
    let mut found = Vec::new();
    for Ok(token) in Tokenizer::new(page) {
        let Token::StartTag(tag) = token else {
            continue;
        };
        if tag.name.as_slice() != b"meta" || found.len() == MAX_ELEMENTS {
            continue;
        }
        let attribute = |name: &[u8]| {
            let mut attributes = tag.attributes.iter();
            let (_, value) = attributes.find(|(key, _)| key.as_slice() == name)?;
            std::str::from_utf8(value).ok()
        };
        found.extend(meta(attribute(b"name"), attribute(b"content")));
    }
    found
}

fn meta(name: Option<&str>, content: Option<&str>) -> Option<Meta> {
    let kind = name.filter(|name| matches!(*name, "ac-discovery" | "ac-discovery-pubkeys"))?;
    let (prefix, url) = content?.trim().split_once(char::is_whitespace)?;
    Some(Meta {
        kind: kind.to_owned(),
        prefix: prefix.trim_end_matches('/').to_owned(),
        url: url.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn page_as_people_write_it_is_read() {
        let page = br#"<!DOCTYPE html><HTML><head><META NAME='ac-discovery' content="example.com  https://x/{name}.{ext}&amp;a">
            <!-- <meta name="ac-discovery" content="example.com https://comment"> -->
            <meta content="example.com/a https://x/keys" name=ac-discovery-pubkeys />
            <meta name="viewport" content="a b"><meta name="ac-discovery" content="alone"><p>"#;
        let found = metas(page);
        let urls: Vec<_> = found.iter().map(|meta| meta.url.as_str()).collect();
        assert_eq!(urls, ["https://x/{name}.{ext}&a", "https://x/keys"]);
        assert!(found[1].is_for("example.com/a/b") && found[1].is_for("example.com/a"));
        assert!(!found[1].is_for("example.com/ab"));
    }

    fn found(name: &str) -> Vec<String> {
        let page = br#"
            <meta name="ac-discovery" content="example.com https://a/{os}/{name}-{version}.{ext}">
            <meta name="ac-discovery" content="example.com https://b/{os}/{name}-{version}.{ext}">
            <meta name="ac-discovery" content="example.com https://c/{os}/{name}-latest.{ext}">"#;
        let endpoints = Page::read(page).images(&name.parse().unwrap());
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

    proptest! {
        #[test]
        fn page_of_any_bytes_is_read_to_its_end(page in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(metas(&page).len() <= MAX_ELEMENTS);
        }
    }
}
