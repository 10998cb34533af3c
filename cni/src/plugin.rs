//! One execution of one plugin (section 2).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::Deserialize;
use serde_json::{Value, json};

/// Asks a plugin what it speaks.
pub(crate) const VERSION: &str = "VERSION";

/// The most of a plugin's output that is read, bytes.
const LIMIT_BYTES: u64 = 1 << 20;

/// Where plugins are looked for on every host: rkt's folder, everyone's, Debian's.
pub fn plugin_folders() -> Vec<PathBuf> {
    ["/usr/lib/rkt/plugins/net", "/opt/cni/bin", "/usr/lib/cni"]
        .map(PathBuf::from)
        .into()
}

/// Whose interfaces they are.
pub struct Container {
    /// What plugins know it by.
    pub id: String,
    /// Its network namespace, if it is there.
    pub namespace: Option<PathBuf>,
    /// Where plugins are looked for, in order.
    pub plugins: Vec<PathBuf>,
}

impl Container {
    /// One whose plugins are those of the host.
    pub fn new(id: &str, namespace: Option<&Path>) -> Self {
        Self {
            id: id.to_owned(),
            namespace: namespace.map(ToOwned::to_owned),
            plugins: plugin_folders(),
        }
    }
}

/// What a plugin says that does not speak the configuration's version.
const INCOMPATIBLE: u32 = 1;

/// What a plugin says when it fails (section 5).
#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

/// One interface, and what is to be done with it.
pub(crate) struct Call<'a> {
    pub container: &'a Container,
    pub command: &'a str,
    pub interface: &'a str,
    pub arguments: &'a str,
}

impl Call<'_> {
    /// Has the plugin called `kind` do it; what it answers, if anything.
    pub(crate) fn execute(&self, kind: &str, configuration: &Value) -> Result<Option<Value>> {
        let program = self.find(kind).with_context(|| {
            let folders = self.container.plugins.iter();
            let looked: Vec<_> = folders.map(|folder| folder.to_string_lossy()).collect();
            format!(
                "there is no network plugin {kind} in {} (Debian's are in the package containernetworking-plugins)",
                looked.join(", ")
            )
        })?;
        let what = || format!("network plugin {} ({})", program.display(), self.command);
        let paths = std::env::join_paths(&self.container.plugins).context("CNI_PATH")?;
        let namespace = self.container.namespace.as_ref();
        // Files, not pipes: neither side waits for the other, and the caller needs no threads.
        let [input, output, errors] = ["input", "output", "errors"].map(memory_file);
        let (mut input, mut output, mut errors) = (input?, output?, errors?);
        input.write_all(&serde_json::to_vec(configuration)?)?;
        input.rewind()?;
        // Of a chain one may know what another does not.
        let arguments = match self.arguments {
            "" => String::new(),
            own => format!("IgnoreUnknown=1;{own}"),
        };
        let status = Command::new(&program)
            .env("CNI_COMMAND", self.command)
            .env("CNI_CONTAINERID", &self.container.id)
            .env(
                "CNI_NETNS",
                namespace.map_or(OsString::new(), |path| path.into()),
            )
            .env("CNI_IFNAME", self.interface)
            .env("CNI_ARGS", arguments)
            .env("CNI_PATH", paths)
            .stdin(input)
            .stdout(output.try_clone()?)
            .stderr(errors.try_clone()?)
            .status()
            .with_context(what)?;
        let (output, errors) = (read(&mut output)?, read(&mut errors)?);
        if status.success() {
            let output = output.trim_ascii();
            let answer = (!output.is_empty()).then(|| serde_json::from_slice(output));
            let answer = answer.transpose();
            return answer.with_context(|| format!("understand the answer of {}", what()));
        }
        let why = match serde_json::from_slice(&output) {
            Ok(Fault { code, msg, .. }) if code == INCOMPATIBLE && self.command != VERSION => {
                let spoken = self.versions(kind)?.join(", ");
                format!("{msg}; it speaks {spoken}")
            }
            Ok(Fault { msg, details, .. }) if details.is_empty() => msg,
            Ok(Fault { msg, details, .. }) => format!("{msg} ({details})"),
            Err(_) => String::from_utf8_lossy(&[errors, output].concat())
                .trim()
                .to_owned(),
        };
        let why = if why.is_empty() {
            status.to_string()
        } else {
            why
        };
        Err(anyhow!(why).context(format!("{} failed", what())))
    }

    /// The versions that the plugin speaks.
    pub(crate) fn versions(&self, kind: &str) -> Result<Vec<String>> {
        let asked = json!({"cniVersion": "1.0.0"});
        let call = Call {
            command: VERSION,
            ..*self
        };
        let mut answer = call.execute(kind, &asked)?.unwrap_or_default();
        let versions = serde_json::from_value(answer["supportedVersions"].take());
        versions.with_context(|| format!("versions that network plugin {kind} speaks"))
    }

    /// The program that is the plugin.
    pub(crate) fn find(&self, kind: &str) -> Option<PathBuf> {
        let folders = self.container.plugins.iter();
        let mut programs = folders.map(|folder| folder.join(kind));
        programs.find(|program| program.is_file())
    }
}

fn memory_file(name: &str) -> io::Result<File> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// What a plugin has written, as far as that is reasonable.
fn read(output: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    output.rewind()?;
    output.take(LIMIT_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
