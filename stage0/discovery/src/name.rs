//! Names of images as they are written on the command line: `example.com/app:1.0,arch=amd64`. Pure text.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use contract::image::{Dependency, Label};
use contract::name::is_ac_identifier;

/// Labels of one name.
const MAX_LABELS: usize = 64;

/// A name and the labels that the image is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// ACIdentifier.
    pub name: String,
    /// In the order given, each name once.
    pub labels: Vec<Label>,
}

impl Name {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let label = self.labels.iter().find(|label| label.name == name)?;
        Some(&label.value)
    }

    /// The same with a label more, if it does not have it.
    #[must_use]
    pub fn or_label(mut self, name: &str, value: &str) -> Self {
        if self.label(name).is_none() {
            self.labels.push(Label {
                name: name.to_owned(),
                value: value.to_owned(),
            });
        }
        self
    }

    /// Whether the name could be looked up: its first part is a host with a domain.
    pub fn has_host(&self) -> bool {
        let host = self.name.split('/').next().unwrap_or_default();
        host.contains('.') || host == "localhost"
    }

    fn check(self) -> Result<Self> {
        ensure!(
            is_ac_identifier(&self.name),
            "{:?} is no name of an App Container image: a-z, 0-9, and -._~/ between them",
            self.name
        );
        ensure!(
            self.labels.len() <= MAX_LABELS,
            "more than {MAX_LABELS} labels"
        );
        for (at, label) in self.labels.iter().enumerate() {
            ensure!(
                is_ac_identifier(&label.name) && label.name != "name",
                "{:?} is no name of a label",
                label.name
            );
            let again = self.labels[..at]
                .iter()
                .any(|other| other.name == label.name);
            ensure!(!again, "label {} is there twice", label.name);
        }
        Ok(self)
    }
}

impl FromStr for Name {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let (name, version) = match first.split_once(':') {
            Some((name, version)) => (name, Some(version)),
            None => (first, None),
        };
        ensure!(
            !version.is_some_and(|version| version.contains('/')),
            "{first:?} is a registry's name"
        );
        let mut labels: Vec<_> = version
            .map(|value| ("version", value))
            .into_iter()
            .collect();
        for part in parts {
            let pair = part.split_once('=');
            labels.push(pair.with_context(|| format!("{part:?} is no LABEL=VALUE"))?);
        }
        if let Some((label, _)) = labels.iter().find(|(_, value)| value.is_empty()) {
            bail!("label {label} has no value");
        }
        let labels = labels.into_iter().map(|(name, value)| Label {
            name: name.to_owned(),
            value: value.to_owned(),
        });
        Self {
            name: name.to_owned(),
            labels: labels.collect(),
        }
        .check()
    }
}

impl TryFrom<&Dependency> for Name {
    type Error = anyhow::Error;

    fn try_from(dependency: &Dependency) -> Result<Self> {
        Self {
            name: dependency.image_name.clone(),
            labels: dependency.labels.clone(),
        }
        .check()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for Label { name, value } in &self.labels {
            write!(f, ",{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn name_with_version_and_labels_is_read() {
        let name: Name = "example.com/app:1.0,arch=amd64".parse().unwrap();
        assert_eq!(name.to_string(), "example.com/app,version=1.0,arch=amd64");
        assert_eq!(name.label("arch"), Some("amd64"));
        let name = name.or_label("os", "linux").or_label("arch", "i386");
        assert_eq!(name.labels.len(), 3);
        assert!(name.has_host());
        assert!(!"busybox".parse::<Name>().unwrap().has_host());
    }

    #[test]
    fn name_that_is_none_is_refused() {
        for text in [
            "",
            ":1",
            "a,",
            "a,b",
            "a,=x",
            "a,b=",
            "a:",
            "A",
            "a//b",
            "a/../b",
            "a:1,version=2",
            "a,name=b",
            "localhost:5000/a",
            "http://x",
        ] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn name_of_any_text_is_refused_or_comes_back(text in "\\PC{0,30}|[a-z./:,=-]{1,30}") {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert_eq!(name.to_string().parse::<Name>().unwrap(), name);
            }
        }
    }
}
