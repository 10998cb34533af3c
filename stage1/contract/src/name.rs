//! ACNames: `^[a-z0-9]+(-[a-z0-9]+)*$`, the names of apps, volumes, ports and mount points; and ACIdentifiers:
//! `^[a-z0-9]+([-._~/][a-z0-9]+)*$`, those of images, labels and annotations.

use anyhow::{Result, ensure};

/// Whether `name` is an ACName.
pub fn is_ac_name(name: &str) -> bool {
    !name.is_empty()
        && name.split('-').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

/// Whether `name` is an ACIdentifier; such a name is a relative path that does not climb.
pub fn is_ac_identifier(name: &str) -> bool {
    name.split(['-', '.', '_', '~', '/'])
        .all(|part| !part.is_empty() && is_ac_name(part))
}

/// Refuses a name of `what` that is no ACName.
///
/// # Errors
/// With the rule.
pub fn check(what: &str, name: &str) -> Result<()> {
    ensure!(
        is_ac_name(name),
        "{what} name {name:?} is not an ACName (a-z, 0-9, inner -)"
    );
    Ok(())
}

/// The ACName nearest to `text`: lower case, every run of other characters one dash; `None` if nothing is left.
pub fn sanitize_ac_name(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let parts: Vec<_> = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect();
    (!parts.is_empty()).then(|| parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ac_name_of_each_shape_is_judged() {
        assert!(["a", "a-b", "0", "web-2-x"].into_iter().all(is_ac_name));
        assert!(
            ["", "-", "a-", "-a", "a--b", "A", "a_b", "a/b", ".."]
                .into_iter()
                .all(|name| !is_ac_name(name))
        );
    }

    #[test]
    fn ac_identifier_of_each_shape_is_judged() {
        assert!(
            ["a", "example.com/a-b_c~0"]
                .into_iter()
                .all(is_ac_identifier)
        );
        assert!(
            ["", "/a", "a/", "a//b", "..", "a/../b", "A", "a:b", "a\0"]
                .into_iter()
                .all(|name| !is_ac_identifier(name))
        );
    }

    #[test]
    fn sanitized_name_is_an_ac_name() {
        assert_eq!(
            sanitize_ac_name("Debian_12.tar").as_deref(),
            Some("debian-12-tar")
        );
        assert_eq!(sanitize_ac_name("..__"), None);
    }
}
