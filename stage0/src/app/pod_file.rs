//! A pod manifest that the user wrote (`--pod-manifest`): passed on byte for byte, its images looked up in the store.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use contract::PodManifest;
use contract::bounded;
use contract::name::is_ac_name;

/// The largest manifest that is read, bytes.
const MAX_BYTES: u64 = 4 << 20;

/// A manifest as it was written, and what it says.
#[derive(Debug)]
pub struct PodFile {
    /// As written.
    pub bytes: Vec<u8>,
    /// As read.
    pub manifest: PodManifest,
}

impl PodFile {
    /// Reads the manifest at `path`.
    ///
    /// # Errors
    /// If it is no pod manifest, or one that cannot be laid out.
    pub fn read(path: &Path) -> Result<Self> {
        let parse = || -> Result<Self> {
            let bytes = bounded::read(File::open(path)?, MAX_BYTES)?;
            let manifest = serde_json::from_slice(&bytes)?;
            check(&manifest)?;
            Ok(Self { bytes, manifest })
        };
        parse().with_context(|| format!("read pod manifest {}", path.display()))
    }
}

/// App names become folders.
fn check(manifest: &PodManifest) -> Result<()> {
    ensure!(!manifest.apps.is_empty(), "it has no apps");
    let mut names = HashSet::new();
    for app in &manifest.apps {
        if !is_ac_name(&app.name) {
            bail!(
                "app name {:?} may hold only a-z, 0-9 and single dashes",
                app.name
            );
        }
        ensure!(
            names.insert(&app.name),
            "two apps are called {:?}",
            app.name
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PodFile> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        PodFile::read(file.path())
    }

    fn pod(apps: &str) -> String {
        format!(r#"{{"acVersion":"0.8.11", "acKind":"PodManifest","apps":[{apps}]}}"#)
    }

    #[test]
    fn manifest_is_kept_as_written() -> Result<()> {
        let text = pod(r#"{"name":"a","image":{"id":"sha512-00","name":"example.com/a"}}"#);
        let file = read(&text)?;
        assert_eq!(file.bytes, text.as_bytes());
        assert_eq!(file.manifest.apps[0].name, "a");
        Ok(())
    }

    #[test]
    fn manifest_that_cannot_be_laid_out_is_refused() {
        let app = |name: &str| format!(r#"{{"name":"{name}","image":{{"id":"x"}}}}"#);
        for text in [
            String::new(),
            "[]".to_owned(),
            pod(""),
            pod(&app("../a")),
            pod(&format!("{},{}", app("a"), app("a"))),
        ] {
            let error = read(&text).expect_err("not a pod");
            assert!(format!("{error:#}").contains("read pod manifest"));
        }
    }
}
