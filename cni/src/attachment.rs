//! A container on a network: all of the network's plugins in order (sections 3 and 4).

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::network::{LAST, Network, has_capability, plugin_type};
use crate::plugin::{Call, Container, VERSION};

/// The version in which plugins can check what they have made.
const WITH_CHECK: [u32; 3] = [0, 4, 0];

/// A container's interface on a network; to be kept until it is deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network, as it was when the interface was added.
    pub network: Network,
    /// Name of the interface in the container.
    pub interface: String,
    /// `CNI_ARGS`: `KEY=VALUE`, with semicolons between them.
    pub arguments: String,
    /// What plugins with such a capability are told, by its name.
    pub capabilities: Map<String, Value>,
    /// What the plugins answered, once they have.
    pub result: Option<Value>,
}

impl Attachment {
    /// Adds the interface. After each plugin `keep` is told how far it is: what is to be deleted, if the next one is the last
    /// thing that this process does, is to be deleted with that result.
    ///
    /// # Errors
    /// What the first plugin to fail says, or `keep`; then it is to be deleted.
    pub fn add(&mut self, container: &Container, keep: impl Fn(&Self) -> Result<()>) -> Result<()> {
        let call = Call {
            container,
            command: VERSION,
            interface: &self.interface,
            arguments: &self.arguments,
        };
        self.network.agree_on_version(&call)?;
        if self.network.is_since(LAST) {
            let mut plugins = self.network.plugins.iter();
            plugins.try_for_each(|plugin| self.execute(container, "STATUS", plugin).map(drop))?;
        }
        for number in 0..self.network.plugins.len() {
            let answer = self.execute(container, "ADD", &self.network.plugins[number])?;
            self.result = answer.or(self.result.take());
            keep(self)?;
        }
        Ok(())
    }

    /// Checks that the interface is as it was made, by plugins that can.
    ///
    /// # Errors
    /// What the first plugin to fail says.
    pub fn check(&self, container: &Container) -> Result<()> {
        let is_checked = self.network.is_since(WITH_CHECK) && !self.network.disable_check;
        let mut checked = self.network.plugins.iter().filter(|_| is_checked);
        checked.try_for_each(|plugin| self.execute(container, "CHECK", plugin).map(drop))
    }

    /// Deletes the interface and all that the plugins have made for it, as far as it is there: every plugin is asked, whatever
    /// the others say. One that is not there any more is told of in the log: else its containers could never go.
    ///
    /// # Errors
    /// What the first plugin to fail says.
    pub fn delete(&self, container: &Container) -> Result<()> {
        let mut deleted = Ok(());
        for plugin in self.network.plugins.iter().rev() {
            let kind = plugin_type(plugin)?;
            if self.call(container, "DEL").find(kind).is_some() {
                deleted = deleted.and(self.execute(container, "DEL", plugin).map(drop));
            } else {
                let name = &self.network.name;
                tracing::warn!("network {name}: plugin {kind} is gone, and deletes nothing");
            }
        }
        deleted
    }

    fn call<'a>(&'a self, container: &'a Container, command: &'a str) -> Call<'a> {
        Call {
            container,
            command,
            interface: &self.interface,
            arguments: &self.arguments,
        }
    }

    fn execute(
        &self,
        container: &Container,
        command: &str,
        plugin: &Map<String, Value>,
    ) -> Result<Option<Value>> {
        self.call(container, command)
            .execute(plugin_type(plugin)?, &self.configuration(plugin))
            .with_context(|| format!("network {}", self.network.name))
    }

    /// What a plugin is told of this interface.
    fn configuration(&self, plugin: &Map<String, Value>) -> Value {
        let mut derived = self.network.derive(plugin);
        let is_wanted = |name: &str| has_capability(plugin, name);
        let wanted = self.capabilities.iter().filter(|(name, _)| is_wanted(name));
        let wanted: Map<_, _> = wanted
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !wanted.is_empty() {
            derived.insert("runtimeConfig".into(), wanted.into());
        }
        if let Some(result) = &self.result {
            derived.insert("prevResult".into(), result.clone());
        }
        derived.into()
    }
}
