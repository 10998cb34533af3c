//! A file or folder that a command makes: it has its name once it is whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
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
        let part = part(&path);
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

/// A folder that has its name only when it is whole.
pub struct OutFolder {
    part: PathBuf,
    path: PathBuf,
    kept: bool,
}

impl OutFolder {
    /// A folder on its way to `path`, for the caller alone.
    ///
    /// # Errors
    /// If something is there that is not to be replaced, or it cannot be made.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self> {
        let path = std::path::absolute(path)?;
        let is_free =
            fs::read_dir(&path).map_or(!path.exists(), |mut found| found.next().is_none());
        ensure!(
            is_free || overwrite && path.is_dir(),
            "{} exists; --overwrite replaces a folder",
            path.display()
        );
        let part = part(&path);
        let made = DirBuilder::new().mode(0o700).create(&part);
        made.with_context(|| {
            format!(
                "make folder {} (if it is what a killed command has left, remove it)",
                part.display()
            )
        })?;
        Ok(Self {
            part,
            path,
            kept: false,
        })
    }

    /// What it is called meanwhile.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Gives it its name, in the place of what is there.
    ///
    /// # Errors
    /// If that cannot be removed, or this not be renamed.
    pub fn keep(mut self) -> Result<()> {
        if self.path.exists() {
            fs::remove_dir_all(&self.path)
                .with_context(|| format!("remove {}", self.path.display()))?;
        }
        fs::rename(&self.part, &self.path)
            .with_context(|| format!("make {}", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for OutFolder {
    fn drop(&mut self) {
        if !self.kept {
            // What kept it from being whole is what is told.
            let _ = fs::remove_dir_all(&self.part);
        }
    }
}

fn part(path: &Path) -> PathBuf {
    let mut part = path.to_path_buf().into_os_string();
    part.push(".part");
    PathBuf::from(part)
}
