//! Whose signatures an image had when it was fetched: told to people, and trusted by nobody.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};

use super::place::VOUCHED;
use super::workshop::replace;
use super::{Image, Store};

impl Store {
    /// Keeps who has vouched for `image`, instead of who was kept before.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn vouch(&self, image: &Image, by: &[String]) -> Result<()> {
        let target = self.place.image(&image.id).join(VOUCHED);
        replace(&self.place.tmp(), &target, &serde_json::to_vec(by)?)
    }

    /// Who has vouched for `image`; nobody, if it was not verified.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn vouched(&self, image: &Image) -> Result<Vec<String>> {
        let path = self.place.image(&image.id).join(VOUCHED);
        let read = || match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            bytes => Ok(serde_json::from_slice(&bytes?)?),
        };
        let read: Result<_> = read();
        read.with_context(|| format!("read {}", path.display()))
    }
}
