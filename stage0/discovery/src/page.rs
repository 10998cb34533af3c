//! The `meta` elements of a discovery page. Pure; the tokenizer takes whatever a browser would.

use html5gum::{Token, Tokenizer};

/// Elements taken of one page.
const MAX_ELEMENTS: usize = 256;

/// `<meta name="…" content="PREFIX URL">`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// `ac-discovery` or `ac-discovery-pubkeys`.
    pub kind: String,
    /// Images whose names begin so are meant.
    pub prefix: String,
    /// A template, or the URL of keys.
    pub url: String,
}

impl Meta {
    /// Whether it is about an image called `name`: by whole parts, since `example.com/a` is not `example.com/ab`.
    pub fn is_for(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// All elements of `page` for discovery, in order.
pub fn metas(page: &[u8]) -> Vec<Meta> {
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

    proptest! {
        #[test]
        fn page_of_any_bytes_is_read_to_its_end(page in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(metas(&page).len() <= MAX_ELEMENTS);
        }
    }
}
