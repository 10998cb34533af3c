//! What the global flags and the configuration files say.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use contract::{UidRange, quantity};
use serde::Deserialize;

use crate::cli::GlobalFlags;

/// Where things are for this call.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Data directory: image store and pods.
    pub dir: PathBuf,
    /// More words on stderr, passed on to stage 1.
    pub debug: bool,
    /// Configuration of this host, passed on to stage 1.
    pub local_config: PathBuf,
    /// `stage1` of the first configuration file that has one, and that file.
    pub stage1: Option<(String, PathBuf)>,
    /// `stage1-images` of the first configuration file that has it.
    pub stage1_images: Option<PathBuf>,
    /// `pod-uids` of the first configuration file that has it.
    pub pod_uids: Option<UidRange>,
    /// The networks of a pod that asks for none by name: `net` of the first configuration file that has it, or `default`.
    pub net: String,
    /// Bytes that the store may take: `--max-store-size`, or `max-store-size` of the first configuration file that has it.
    pub max_store_bytes: Option<u64>,
    /// Values of `--insecure-options`.
    pub insecure_options: Vec<String>,
    /// The distribution's configuration.
    pub system_config: PathBuf,
    /// This user's configuration.
    pub user_config: Option<PathBuf>,
    /// Whether keys that discovery finds are trusted unseen.
    pub trust_keys_from_https: bool,
}

/// A `config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ConfigFile {
    /// As `--stage1` takes it.
    stage1: Option<String>,
    /// The folder of stage 1s that are named by their file.
    stage1_images: Option<PathBuf>,
    /// The uids that pods may run under, `FIRST:COUNT`.
    pod_uids: Option<String>,
    /// As `--net` takes it.
    net: Option<String>,
    /// As `--max-store-size` takes it.
    max_store_size: Option<String>,
}

impl Settings {
    /// Reads the configuration files that exist; what several say, the first of them decides.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn new(flags: &GlobalFlags) -> Result<Self> {
        let root = nix::unistd::geteuid().is_root();
        let dir = flags.dir.clone().unwrap_or_else(|| default_dir(root));
        let user_config = flags.user_config.clone().or_else(user_config_dir);
        let (mut stage1, mut stage1_images, mut pod_uids, mut net) = (None, None, None, None);
        let size = |text: &String| quantity::parse_whole(text);
        let mut max_store_bytes = flags.max_store_size.as_ref().map(size).transpose()?;
        for folder in [
            user_config.clone(),
            Some(flags.local_config.clone()),
            Some(flags.system_config.clone()),
        ] {
            let Some(path) = folder.map(|folder| folder.join("config.toml")) else {
                continue;
            };
            let file = read_config(&path)?;
            let uids = file.pod_uids.map(|text| text.parse()).transpose();
            let uids =
                uids.with_context(|| format!("read pod-uids in configuration {}", path.display()))?;
            pod_uids = pod_uids.or(uids);
            let bytes = file.max_store_size.as_ref().map(size).transpose();
            let bytes = bytes.with_context(|| {
                format!("read max-store-size in configuration {}", path.display())
            })?;
            max_store_bytes = max_store_bytes.or(bytes);
            stage1_images = stage1_images.or(file.stage1_images);
            net = net.or(file.net);
            stage1 = stage1.or_else(|| file.stage1.map(|name| (name, path)));
        }
        Ok(Self {
            dir: std::path::absolute(&dir)
                .with_context(|| format!("find directory {}", dir.display()))?,
            debug: flags.debug,
            local_config: flags.local_config.clone(),
            stage1,
            stage1_images,
            pod_uids,
            net: net.unwrap_or_else(|| "default".into()),
            max_store_bytes,
            insecure_options: flags.insecure_options.clone(),
            system_config: flags.system_config.clone(),
            user_config,
            trust_keys_from_https: flags.trust_keys_from_https == Some(true),
        })
    }

    /// Whether `--insecure-options` switches off this protection when images are fetched.
    pub fn fetches_insecurely(&self, option: &str) -> bool {
        self.insecure_options
            .iter()
            .any(|given| given == option || given == "all" || given == "all-fetch")
    }

    /// Whether `--insecure-options` switches off this protection of the apps.
    pub fn is_insecure(&self, option: &str) -> bool {
        self.insecure_options
            .iter()
            .any(|given| given == option || given == "all" || given == "all-run")
    }
}

fn read_config(path: &Path) -> Result<ConfigFile> {
    match fs::read_to_string(path) {
        Ok(text) => {
            toml::from_str(&text).with_context(|| format!("read configuration {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(ConfigFile::default()),
        Err(error) => Err(error).with_context(|| format!("read configuration {}", path.display())),
    }
}

fn default_dir(root: bool) -> PathBuf {
    if root {
        return PathBuf::from("/var/lib/fairing");
    }
    xdg("XDG_DATA_HOME", ".local/share").map_or_else(
        || PathBuf::from("/var/lib/fairing"),
        |base| base.join("fairing"),
    )
}

fn user_config_dir() -> Option<PathBuf> {
    xdg("XDG_CONFIG_HOME", ".config").map(|base| base.join("fairing"))
}

/// A base directory of the XDG specification: the variable's if it is absolute, else below the home directory.
fn xdg(variable: &str, default: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| {
            let home = PathBuf::from(std::env::var_os("HOME")?);
            home.is_absolute().then(|| home.join(default))
        })
}
