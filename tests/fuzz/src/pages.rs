//! Discovery pages. Input: the name of an image on the first line, then the page.

use discovery::{Name, Page};

/// Reads the page as one about the name, if it is one.
pub fn run(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (name, page) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let page = Page::read(page);
    let Some(name) = std::str::from_utf8(name)
        .ok()
        .and_then(|name| name.parse::<Name>().ok())
    else {
        return;
    };
    for endpoint in page.images(&name) {
        assert!(endpoint.asc.len() > endpoint.aci.len(), "{endpoint:?}");
    }
    page.keys(&name);
}

/// Pages with templates and keys.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let page = r#"example.com/app:1,os=linux
<!DOCTYPE html><HTML><head><META NAME='ac-discovery' content="example.com  https://x/{os}/{name}-{version}.{ext}&amp;a">
<meta name="ac-discovery" content="example.com https://b/{name}.{ext}"><!-- <meta name="ac-discovery" content="a b"> -->
<meta content="example.com/app https://x/keys" name=ac-discovery-pubkeys /><script><meta></script><p>"#;
    vec![page.into(), b"example.com/app\n<meta".into()]
}
