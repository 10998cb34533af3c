//! Names in images: paths inside an archive, references such as `docker.io/library/debian:12`, identifiers of appc.
//!
//! Called by the sources and by the store; all pure text but [`stem`], which may ask where a path leads.

use std::path::Path;

/// What may stand before a bare name: nothing, where podman puts what is built here, and where docker puts what has no registry.
pub const PREFIXES: [&str; 3] = ["", "localhost/", "docker.io/library/"];

/// `path` without `.` and empty parts and with `..` resolved; `None` if it leads outside.
pub fn clean(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The name and, if there is one, the tag of a reference; a digest after `@` is left out.
pub fn split_reference(reference: &str) -> (&str, Option<&str>) {
    let reference = reference.split('@').next().unwrap_or(reference);
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (reference, None),
    }
}

/// The registry that a name without a tag begins with, if it does with one, and the rest: by docker's rule, a first part
/// with a dot or a port, or `localhost`.
pub fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

/// `name` as docker spells it, with a tag; `None` if it takes no such name.
pub fn docker_reference(name: &str) -> Option<String> {
    let (repository, tag) = split_reference(name);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: u8| plain(byte) || b"._-:/".contains(&byte);
    let part = |part: &str| {
        let (first, last) = (part.bytes().next(), part.bytes().last());
        first.is_some_and(plain) && last.is_some_and(plain)
    };
    let is_name = repository.bytes().all(inner) && repository.split('/').all(part);
    is_name.then(|| format!("{repository}:{}", tag.unwrap_or("latest")))
}

/// The ACIdentifier (`^[a-z0-9]+([-._~/][a-z0-9]+)*$`) nearest to `text`; `None` if nothing is left.
pub fn ac_identifier(text: &str) -> Option<String> {
    let mut identifier = String::new();
    let mut separator = None;
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_alphanumeric() {
            if let Some(separator) = separator.take().filter(|_| !identifier.is_empty()) {
                identifier.push(separator);
            }
            identifier.push(c);
        } else if separator != Some('/') {
            separator = Some(if "._~/".contains(c) { c } else { '-' });
        }
    }
    (!identifier.is_empty()).then_some(identifier)
}

/// Whether `text` is an ACIdentifier.
pub fn is_ac_identifier(text: &str) -> bool {
    ac_identifier(text).as_deref() == Some(text)
}

/// The last part of a path without the endings of archives.
pub fn stem(path: &Path) -> String {
    let last = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    // A path such as `.` has no last part of its own.
    let name = last(path).or_else(|| last(&path.canonicalize().ok()?));
    let name = name.unwrap_or_default();
    let mut stem = name.as_str();
    let endings = [".gz", ".bz2", ".xz", ".zst", ".tgz", ".txz", ".tar", ".aci"];
    while let Some(shorter) = endings.iter().find_map(|ending| stem.strip_suffix(ending)) {
        stem = shorter;
    }
    stem.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn path_that_climbs_is_refused() {
        assert_eq!(clean("./a//b/../c"), Some("a/c".into()));
        assert_eq!(clean("/a"), Some("a".into()));
        assert_eq!(clean("a/../../b"), None);
    }

    #[test]
    fn stem_is_the_name_without_the_endings_of_archives() {
        assert_eq!(stem(Path::new("/x/debian-12.tar.xz")), "debian-12");
        assert_eq!(stem(Path::new("image.aci")), "image");
        assert_eq!(stem(Path::new("rootfs/")), "rootfs");
        assert!(!stem(Path::new(".")).is_empty());
    }

    #[test]
    fn reference_is_split_at_the_tag_not_at_the_port() {
        assert_eq!(split_reference("debian:12"), ("debian", Some("12")));
        assert_eq!(split_reference("host:5000/a"), ("host:5000/a", None));
        assert_eq!(split_reference("a/b:1@sha256:00"), ("a/b", Some("1")));
    }

    #[test]
    fn registry_is_a_first_part_that_can_be_a_host() {
        for (name, split) in [
            ("docker.io/library/a", (Some("docker.io"), "library/a")),
            ("localhost/a", (Some("localhost"), "a")),
            ("h:5000/a/b", (Some("h:5000"), "a/b")),
            ("library/a", (None, "library/a")),
            ("a.b", (None, "a.b")),
        ] {
            assert_eq!(split_registry(name), split);
        }
    }

    #[test]
    fn reference_that_docker_takes_has_a_tag() {
        let named = |name| docker_reference(name);
        assert_eq!(named("tool").as_deref(), Some("tool:latest"));
        assert_eq!(named("h:5000/a/b:1").as_deref(), Some("h:5000/a/b:1"));
        for name in ["", "Tool", "a//b", "a/", "-a", "a b"] {
            assert_eq!(named(name), None, "{name}");
        }
    }

    #[test]
    fn identifier_is_what_appc_takes() {
        assert_eq!(
            ac_identifier("Host:5000/A__b").as_deref(),
            Some("host-5000/a_b")
        );
        assert_eq!(ac_identifier("_x_").as_deref(), Some("x"));
        assert_eq!(ac_identifier("--"), None);
        assert!(is_ac_identifier("example.com/tool-1.0"));
        assert!(!is_ac_identifier("Example.com"));
    }

    proptest! {
        #[test]
        fn names_of_any_text_stay_inside_and_become_identifiers(text in "([a-zA-Z0-9._~/:@-]|\\PC){0,30}") {
            if let Some(path) = clean(&text) {
                prop_assert!(path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert_eq!(clean(&path), Some(path.clone()));
            }
            if let Some(identifier) = ac_identifier(&text) {
                prop_assert!(is_ac_identifier(&identifier), "{:?}", identifier);
            }
            let (name, tag) = split_reference(&text);
            prop_assert!(text.starts_with(name) && tag.is_none_or(|tag| !tag.contains('/')));
        }
    }
}
