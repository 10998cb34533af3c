//! `fairing image rm`: images leave the store.

use anyhow::{Result, bail};
use clap::Args;
use image::{Image, Store};

use super::find;
use crate::images::users;
use crate::pods::Pods;

/// Removes images that no pod uses; by one of several names, only the name
#[derive(Debug, Args)]
pub struct Rm {
    /// What pods use, too: they have its files themselves
    #[arg(short, long)]
    pub force: bool,
    /// Names, ids or their beginnings
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

impl Rm {
    pub(super) fn run(&self, store: &Store, pods: &Pods) -> Result<i32> {
        let mut code = 0;
        for word in &self.images {
            let image = find(store, word);
            let removed = image.and_then(|image| self.remove(word, image, store, pods));
            if let Err(error) = removed {
                crate::warn(&error);
                code = crate::FAILED;
            }
        }
        Ok(code)
    }

    fn remove(&self, word: &str, image: Image, store: &Store, pods: &Pods) -> Result<()> {
        if image.names.len() > 1 && store.is_name(word)? {
            store.untag(&image, &[word.to_owned()])?;
            return crate::print_line(word);
        }
        let id = image.id.clone();
        let gone = store.remove_unless(image, |image| {
            match users(pods)?.remove(&image.id).unwrap_or_default().as_slice() {
                [] => Ok(false),
                _ if self.force => Ok(false),
                users => bail!(
                    "image {} is used by pod {}; `fairing rm` removes pods, --force the image alone: the pods have its files \
                     themselves",
                    image.id,
                    users.join(", ")
                ),
            }
        })?;
        match gone {
            true => crate::print_line(&id),
            false => {
                bail!("image {id} is in use by another command; try again when that has ended")
            }
        }
    }
}
