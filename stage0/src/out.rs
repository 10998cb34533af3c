//! A file that a command makes: it has its name once it is whole.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A file that has its name only when it is whole.
pub struct Out {
    file: File,
    part: PathBuf,
    path: PathBuf,
    kept: bool,
}

impl Out {
    /// A file on its way to `path`.
    ///
    /// # Errors
    /// If it is there, or cannot be made, or another command writes it.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self> {
        // Where it is whatever this process's working directory is by then.
        let path = std::path::absolute(path)?;
        ensure!(
            overwrite || !path.exists(),
            "{} exists; --overwrite replaces it",
            path.display()
        );
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&part);
        let file = file.with_context(|| format!("make {}", part.display()))?;
        ensure!(
            file.try_lock().is_ok(),
            "another command is writing {}",
            part.display()
        );
        // What a command has left that was killed.
        file.set_len(0)?;
        Ok(Self {
            file,
            part,
            path,
            kept: false,
        })
    }

    /// What is written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What it is called meanwhile.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// If it cannot be made durable or renamed.
    pub fn keep(mut self) -> Result<()> {
        self.file.sync_all().context("write the image")?;
        fs::rename(&self.part, &self.path)
            .with_context(|| format!("make {}", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.part);
        }
    }
}
