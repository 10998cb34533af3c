//! URL templates: `https://example.com/{name}-{version}-{os}-{arch}.{ext}`. Pure text.

use std::fmt::Write as _;

use crate::name::Name;

/// A URL made of a template, and how many labels went into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub url: String,
    pub labels: usize,
}

/// The URL of `name` with this `extension`; `None` if the template asks for what the name does not have.
pub fn render(template: &str, name: &Name, extension: &str) -> Option<Rendered> {
    let mut url = String::new();
    let (mut labels, mut has_extension) = (0, false);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        url.push_str(before);
        let (variable, after) = after.split_once('}')?;
        match variable {
            "name" => url.push_str(&name.name),
            "ext" => {
                url.push_str(extension);
                has_extension = true;
            }
            label => {
                escape(name.label(label)?, &mut url);
                labels += 1;
            }
        }
        rest = after;
    }
    url.push_str(rest);
    has_extension.then_some(Rendered { url, labels })
}

/// As RFC 6570 has it for simple expansion: all but unreserved characters; a name is an identifier, and stays as it is.
fn escape(value: &str, into: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str) -> Option<(String, usize)> {
        let name: Name = "example.com/app,version=1+2/..,os=linux".parse().unwrap();
        render(template, &name, "aci").map(|rendered| (rendered.url, rendered.labels))
    }

    #[test]
    fn template_with_known_labels_is_rendered_and_counted() {
        let (url, labels) = rendered("https://x/{os}/{name}-{version}.{ext}").unwrap();
        assert_eq!(url, "https://x/linux/example.com/app-1%2B2%2F...aci");
        assert_eq!(labels, 2);
    }

    #[test]
    fn template_with_more_than_is_known_is_left_out() {
        for template in [
            "https://x/{arch}.{ext}",
            "https://x/{name}",
            "https://x/{ext",
            "{}{ext}",
        ] {
            assert_eq!(rendered(template), None, "{template}");
        }
    }
}
