//! A network's configuration: a list of plugins.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use contract::bounded;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::plugin::{Call, Container, VERSION};

/// The last version that this speaks, which brought STATUS and GC.
pub(crate) const LAST: [u32; 3] = [1, 1, 0];

/// The largest file of a configuration, bytes.
const LIMIT_BYTES: u64 = 1 << 20;

/// A network: plugins that make it, one after the other (section 1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Its name, which plugins keep their state under.
    pub name: String,
    /// The version that its plugins are to speak.
    #[serde(default = "first_version")]
    pub cni_version: String,
    /// Versions of which its plugins are to speak the highest that all of them know, if it has any (section 1 of version 1.1.0).
    #[serde(default)]
    pub(crate) cni_versions: Vec<String>,
    /// Whether it is not to be checked.
    #[serde(default)]
    pub disable_check: bool,
    /// Whether nothing is to be deleted by what is valid.
    #[serde(default, rename = "disableGC")]
    pub(crate) disable_gc: bool,
    /// What each plugin is told.
    pub(crate) plugins: Vec<Map<String, Value>>,
}

/// What a configuration without a version has (section 1 of version 0.1.0).
fn first_version() -> String {
    "0.1.0".into()
}

impl Network {
    /// Reads a configuration, of a list or of one plugin alone.
    ///
    /// # Errors
    /// When it is none, or names a plugin that climbs out of its folder.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let mut document: Map<String, Value> = serde_json::from_slice(json)?;
        if !document.contains_key("plugins") {
            let plugin = Value::Object(document.clone());
            document.retain(|key, _| ["name", "cniVersion"].contains(&key.as_str()));
            document.insert("plugins".into(), vec![plugin].into());
        }
        let network: Self = serde_json::from_value(document.into())?;
        ensure!(!network.plugins.is_empty(), "it has no plugins");
        // Plugins make files and rules of this name.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let name = &network.name;
        ensure!(
            name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain),
            "{name:?} is no name of a network"
        );
        for plugin in &network.plugins {
            let kind = plugin_type(plugin)?;
            let is_file = !kind.is_empty() && !kind.contains('/') && !kind.starts_with('.');
            ensure!(is_file, "{kind:?} is no type of a plugin");
        }
        Ok(network)
    }

    /// Has its plugins delete what belongs to none of the containers' interfaces that are `valid`, each a container's id and the interface's name;
    /// whether they know how to.
    ///
    /// # Errors
    /// What the first plugin to fail says; the others are asked, too.
    pub fn collect(&self, plugins: Vec<PathBuf>, valid: &[(String, String)]) -> Result<bool> {
        let container = Container {
            id: String::new(),
            namespace: None,
            plugins,
        };
        let call = Call {
            container: &container,
            command: VERSION,
            interface: "",
            arguments: "",
        };
        let mut network = self.clone();
        network.agree_on_version(&call)?;
        if !network.is_since(LAST) || network.disable_gc {
            return Ok(false);
        }
        let call = Call {
            command: "GC",
            ..call
        };
        let valid = valid.iter();
        let valid = valid.map(|(id, interface)| json!({"containerID": id, "ifname": interface}));
        let valid: Value = valid.collect();
        let mut collected = Ok(());
        for plugin in &network.plugins {
            let mut told = network.derive(plugin);
            told.insert("cni.dev/valid-attachments".into(), valid.clone());
            let done = call.execute(plugin_type(plugin)?, &told.into());
            collected = collected.and(done.map(drop));
        }
        collected.with_context(|| format!("network {}", self.name))?;
        Ok(true)
    }

    /// Takes the highest version that all plugins speak, where the configuration leaves it to them; `call` asks.
    pub(crate) fn agree_on_version(&mut self, call: &Call) -> Result<()> {
        let mut versions = std::mem::take(&mut self.cni_versions);
        if versions.is_empty() {
            return Ok(());
        }
        versions.retain(|version| numbers(version) <= LAST);
        for plugin in &self.plugins {
            let spoken = call.versions(plugin_type(plugin)?)?;
            versions.retain(|version| spoken.contains(version));
        }
        let highest = versions.into_iter().max_by_key(|version| numbers(version));
        self.cni_version = highest.context("there is no version that all plugins speak")?;
        Ok(())
    }

    /// What one of its plugins is told in any case (section 3, deriving execution configuration).
    pub(crate) fn derive(&self, plugin: &Map<String, Value>) -> Map<String, Value> {
        let mut derived = plugin.clone();
        derived.remove("capabilities");
        derived.insert("name".into(), json!(self.name));
        derived.insert("cniVersion".into(), json!(self.cni_version));
        derived
    }

    /// Whether its plugins have what came with this version.
    pub(crate) fn is_since(&self, version: [u32; 3]) -> bool {
        numbers(&self.cni_version) >= version
    }

    /// Whether one of its plugins has this capability.
    pub fn offers(&self, capability: &str) -> bool {
        let mut plugins = self.plugins.iter();
        plugins.any(|plugin| has_capability(plugin, capability))
    }

    /// All networks that the files of `folders` describe, each folder in the order of its files' names; of those of one name the
    /// first. And what is wrong with files that describe none.
    ///
    /// # Errors
    /// When a folder that is there cannot be read.
    pub fn find_all(folders: &[PathBuf]) -> Result<(Vec<Self>, Vec<anyhow::Error>)> {
        let (mut networks, mut faults) = (Vec::<Self>::new(), Vec::new());
        for folder in folders {
            for path in files(folder).with_context(|| format!("read {}", folder.display()))? {
                let network = File::open(&path)
                    .map_err(Into::into)
                    .and_then(|file| bounded::read(file, LIMIT_BYTES))
                    .and_then(|json| Self::parse(&json))
                    .with_context(|| format!("read network configuration {}", path.display()));
                match network {
                    Ok(network) if networks.iter().any(|other| other.name == network.name) => {}
                    Ok(network) => networks.push(network),
                    Err(fault) => faults.push(fault),
                }
            }
        }
        Ok((networks, faults))
    }
}

/// The parts of a version; what is none is 0.
pub(crate) fn numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

/// Whether a plugin wants to be told what this capability is for.
pub(crate) fn has_capability(plugin: &Map<String, Value>, name: &str) -> bool {
    let capabilities = plugin.get("capabilities");
    let has = capabilities.and_then(|capabilities| capabilities.get(name)?.as_bool());
    has == Some(true)
}

/// Which program a plugin is.
pub(crate) fn plugin_type(plugin: &Map<String, Value>) -> Result<&str> {
    match plugin.get("type") {
        Some(Value::String(kind)) => Ok(kind),
        _ => bail!("a plugin has no type"),
    }
}

/// Configurations in a folder, which may be missing.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    let is_configuration = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| ["conf", "conflist", "json"].contains(&extension))
    };
    paths.retain(is_configuration);
    paths.sort();
    Ok(paths)
}
