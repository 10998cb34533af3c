//! An app's environment, put together in rkt's order (contract section 3.3):
//! image, then the caller's (only what is missing), `--environment`, `--set-env-file`, `--set-env`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use contract::image::Variable;

/// What the command line sets for all apps of a pod.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The caller's environment, with `--inherit-env`.
    pub inherited: Vec<Variable>,
    /// The lines of every `--set-env-file`.
    pub files: Vec<Variable>,
    /// Every `--set-env`.
    pub set: Vec<Variable>,
}

impl Layers {
    /// The environment of an app whose image has `image` and whose flags are `app`; each name occurs once.
    pub fn merge(&self, image: &[Variable], app: &[Variable]) -> Vec<Variable> {
        let mut merged = Merged::default();
        image.iter().for_each(|variable| merged.put(variable));
        for variable in &self.inherited {
            if !merged.places.contains_key(variable.name.as_str()) {
                merged.put(variable);
            }
        }
        for layer in [app, &self.files, &self.set] {
            layer.iter().for_each(|variable| merged.put(variable));
        }
        merged.variables
    }
}

/// Variables in the order in which they came, and where each name is: an image may set hundreds of thousands.
#[derive(Default)]
struct Merged<'a> {
    variables: Vec<Variable>,
    places: HashMap<&'a str, usize>,
}

impl<'a> Merged<'a> {
    fn put(&mut self, variable: &'a Variable) {
        match self.places.entry(&variable.name) {
            Entry::Occupied(place) => {
                self.variables[*place.get()]
                    .value
                    .clone_from(&variable.value);
            }
            Entry::Vacant(place) => {
                place.insert(self.variables.len());
                self.variables.push(variable.clone());
            }
        }
    }
}

/// The caller's environment, without what is not text.
pub fn inherited() -> Vec<Variable> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            Some(Variable {
                name: name.into_string().ok()?,
                value: value.into_string().ok()?,
            })
        })
        .collect()
}

/// Reads an environment file: one `NAME=VALUE` a line, empty lines and `#` comments left out; `NAME` alone takes the
/// caller's value if there is one.
///
/// # Errors
/// If the file cannot be read or a line has no name.
pub fn read_file(path: &Path) -> Result<Vec<Variable>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("read environment file {}", path.display()))?;
    parse_file(&text).with_context(|| format!("read environment file {}", path.display()))
}

fn parse_file(text: &str) -> Result<Vec<Variable>> {
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim_end(), std::env::var(line.trim_end()).ok()),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!("line {}: no name before =", index + 1);
        }
        variables.extend(value.map(|value| Variable {
            name: name.to_owned(),
            value,
        }));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<Variable> {
        text.split_whitespace()
            .map(|pair| {
                let (name, value) = pair.split_once('=').expect("a pair");
                Variable {
                    name: name.into(),
                    value: value.into(),
                }
            })
            .collect()
    }

    #[test]
    fn environment_of_all_layers_is_in_rkts_order() {
        let layers = Layers {
            inherited: list("A=inherited B=inherited"),
            files: list("C=file D=file"),
            set: list("D=set"),
        };
        let merged = layers.merge(&list("A=image Z=image"), &list("B=app C=app Z=app"));
        assert_eq!(merged, list("A=image Z=app B=app C=file D=set"));
    }

    /// Looking through all of them for each would be quadratic.
    #[test]
    fn environment_of_an_image_that_sets_a_hundred_thousand_is_merged_at_once() {
        let image: Vec<Variable> = (0..100_000)
            .map(|number| Variable {
                name: format!("V{number}"),
                value: String::new(),
            })
            .collect();
        let begun = std::time::Instant::now();
        assert_eq!(Layers::default().merge(&image, &image).len(), image.len());
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    }

    #[test]
    fn file_of_variables_is_read() -> Result<()> {
        assert_eq!(
            parse_file("# x\n\nA=1\n  B=2=3\nFAIRING_UNSET_\n")?,
            list("A=1 B=2=3")
        );
        assert!(parse_file("=1").is_err());
        Ok(())
    }
}
