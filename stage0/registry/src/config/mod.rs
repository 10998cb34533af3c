//! What registries.conf says: where names without a host are looked for, and where repositories really are.
//!
//! Read once by `Access::new`. The files, their order and their fields are those of containers-registries.conf(5),
//! version 2, as podman reads them.

mod file;
mod lookaside;
mod places;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::endpoint::Endpoint;
use file::File;
use image::oci::{DOCKER_HOST, Reference, has_host};
pub use lookaside::Lookaside;
use places::Registry;

/// All files together.
#[derive(Debug, Default)]
pub struct Config {
    /// `None` if no file says.
    search: Option<Vec<String>>,
    registries: Vec<Registry>,
    aliases: BTreeMap<String, String>,
    /// The files that were read.
    files: Vec<PathBuf>,
}

impl Config {
    /// Reads the files of this host and user.
    ///
    /// # Errors
    /// If one cannot be read or is malformed; that there is none is no error.
    pub fn load(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let mut config = Self::default();
        for path in file::paths(variable)? {
            let read = File::read(&path)
                .with_context(|| format!("read configuration {}", path.display()))?;
            if let Some(read) = read {
                config.add(read)?;
                config.files.push(path);
            }
        }
        Ok(config)
    }

    /// Later files win.
    fn add(&mut self, file: File) -> Result<()> {
        if let Some(search) = file.unqualified_search_registries {
            self.search = Some(search);
        }
        for registry in file.registry {
            let registry = registry.checked()?;
            self.registries
                .retain(|known| known.prefix != registry.prefix);
            self.registries.push(registry);
        }
        for (short, whole) in file.aliases {
            if whole.is_empty() {
                self.aliases.remove(&short);
            } else {
                self.aliases.insert(short, whole);
            }
        }
        Ok(())
    }

    /// What a name may mean, most likely first: itself if it has a host, else its alias, else one for each registry of
    /// the search list, which is docker.io where no file has one.
    ///
    /// # Errors
    /// If it is no reference, or no registry is to be searched.
    pub fn candidates(&self, name: &str) -> Result<Vec<Reference>> {
        if has_host(name) {
            return Ok(vec![name.parse()?]);
        }
        let end = name.find([':', '@']).unwrap_or(name.len());
        if let Some(whole) = self.aliases.get(&name[..end]) {
            let text = format!("{whole}{}", &name[end..]);
            let meant = text
                .parse()
                .with_context(|| format!("read alias {whole:?} of {:?}", &name[..end]))?;
            return Ok(vec![meant]);
        }
        // Malformed names are told of as such, not as missing somewhere.
        let by_default: Reference = name.parse()?;
        let Some(search) = &self.search else {
            return Ok(vec![by_default]);
        };
        if search.is_empty() {
            let files: Vec<_> = self.files.iter().map(|path| path.display()).collect();
            bail!(
                "{name:?} names no registry, and unqualified-search-registries is empty ({files:?})"
            );
        }
        search
            .iter()
            .map(|host| match host.as_str() {
                DOCKER_HOST => Ok(by_default.clone()),
                host => format!("{host}/{name}").parse().with_context(|| {
                    format!("look for {name:?} in {host:?} of unqualified-search-registries")
                }),
            })
            .collect()
    }

    /// Where `reference` is to be had, mirrors first.
    ///
    /// # Errors
    /// If its registry is blocked, or a location makes no name.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let name = reference.name();
        let matching = self
            .registries
            .iter()
            .filter_map(|registry| Some((registry.matched(&name)?, registry)))
            .max_by_key(|(_, registry)| registry.prefix.len());
        match matching {
            Some((matched, registry)) => registry
                .endpoints(reference, matched)
                .with_context(|| format!("find where {reference} is, by registries.conf")),
            None => Ok(vec![Endpoint {
                reference: reference.clone(),
                insecure: false,
            }]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(texts: &[&str]) -> Config {
        let mut config = Config::default();
        for text in texts {
            config.add(toml::from_str(text).unwrap()).unwrap();
        }
        config
    }

    fn names(references: &[Reference]) -> Vec<String> {
        references.iter().map(ToString::to_string).collect()
    }

    fn places(config: &Config, name: &str) -> Vec<(String, bool)> {
        let endpoints = config.endpoints(&name.parse().unwrap()).unwrap();
        endpoints
            .iter()
            .map(|endpoint| (endpoint.reference.to_string(), endpoint.insecure))
            .collect()
    }

    #[test]
    fn short_name_without_configuration_is_dockers() {
        let candidates = Config::default().candidates("alpine:3").unwrap();
        assert_eq!(names(&candidates), ["docker.io/library/alpine:3"]);
    }

    #[test]
    fn short_name_is_looked_for_in_each_registry_of_the_list() {
        let config = config(&[
            r#"unqualified-search-registries = ["x.org"]"#,
            r#"unqualified-search-registries = ["registry.example.com:5000", "docker.io"]"#,
        ]);
        let candidates = config.candidates("alpine").unwrap();
        assert_eq!(
            names(&candidates),
            [
                "registry.example.com:5000/alpine:latest",
                "docker.io/library/alpine:latest"
            ]
        );
        let whole = config.candidates("quay.io/alpine").unwrap();
        assert_eq!(names(&whole), ["quay.io/alpine:latest"]);
    }

    #[test]
    fn empty_list_finds_nothing_and_says_so() {
        let config = config(&["unqualified-search-registries = []"]);
        let error = config.candidates("alpine").unwrap_err().to_string();
        assert!(error.contains("names no registry"), "{error}");
    }

    #[test]
    fn alias_counts_before_the_list() {
        let config = config(&[
            "unqualified-search-registries = []\n[aliases]\n\"fedora\" = \"registry.fedoraproject.org/fedora\"",
            "[aliases]\ngone = \"quay.io/gone\"",
            "[aliases]\ngone = \"\"",
        ]);
        let candidates = config.candidates("fedora:40").unwrap();
        assert_eq!(names(&candidates), ["registry.fedoraproject.org/fedora:40"]);
        assert!(config.candidates("gone").is_err());
    }

    #[test]
    fn longest_prefix_decides_and_is_rewritten() {
        let config = config(&[r#"
            [[registry]]
            prefix = "example.com"
            location = "internal:5000"
            insecure = true
            [[registry]]
            prefix = "example.com/foo"
            location = "other.org/bar"
            [[registry]]
            prefix = "*.wild.org"
            location = "tame.org/w"
            [[registry]]
            location = "blocked.org"
            blocked = true
        "#]);
        for (name, place, insecure) in [
            ("example.com/x/y:1", "internal:5000/x/y:1", true),
            ("example.com/foo/x", "other.org/bar/x:latest", false),
            ("example.com/food", "internal:5000/food:latest", true),
            ("a.wild.org/x", "tame.org/w/x:latest", false),
            ("wild.org/x", "wild.org/x:latest", false),
            (
                "example.com.evil.org/x",
                "example.com.evil.org/x:latest",
                false,
            ),
        ] {
            assert_eq!(places(&config, name), [(place.to_owned(), insecure)]);
        }
        let blocked = config.endpoints(&"blocked.org/x".parse().unwrap());
        assert!(format!("{:#}", blocked.unwrap_err()).contains("blocked"));
    }

    #[test]
    fn mirrors_come_first_and_some_for_digests_alone() {
        let config = config(&[r#"
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror:5000/docker"
            insecure = true
            [[registry.mirror]]
            location = "digests:5000"
            pull-from-mirror = "digest-only"
        "#]);
        let by_tag = places(&config, "alpine");
        assert_eq!(
            by_tag,
            [
                ("mirror:5000/docker/library/alpine:latest".to_owned(), true),
                ("docker.io/library/alpine:latest".to_owned(), false),
            ]
        );
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(places(&config, &format!("alpine@{digest}")).len(), 3);
    }

    #[test]
    fn registry_without_a_place_is_refused() {
        for text in [
            "[[registry]]",
            "[[registry]]\nprefix = \"x.org\"\n[[registry.mirror]]",
        ] {
            let file = toml::from_str(text).unwrap();
            assert!(Config::default().add(file).is_err(), "{text}");
        }
    }
}
