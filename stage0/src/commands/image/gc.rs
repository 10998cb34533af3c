//! `fairing image gc`: images that nobody uses leave the store.
//!
//! rkt removes by age alone, as its images come from the network again; podman's prune leaves those with a name, as some are
//! nowhere else. Here both are asked: how long nobody used it, and, but for --all, whether it has a name. The stage 1s that are unpacked
//! for pods to come go, too, when no pod was made with them for as long, or their image has left the store; and what was fetched of images.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::Args;
use image::{Image, Store, is_id};
use registry::Blobs;

use crate::acis;
use crate::cli::parse_duration;
use crate::images::users;
use crate::pods::Pods;
use crate::stage1;

/// Removes images without a name that nobody has used for some time, unpacked stage 1s, and what was fetched
#[derive(Debug, Args)]
pub struct Gc {
    /// Those with names, too
    #[arg(short, long)]
    pub all: bool,
    /// How long an image is kept after it was used
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub grace_period: Duration,
}

impl Gc {
    pub(super) fn run(&self, store: &Store, pods: &Pods, data: &Path) -> Result<i32> {
        let mut code = 0;
        for image in store.list()? {
            let id = image.id.clone();
            // The pods and names that count are those of the moment in which nobody else has the image.
            let removed = store.remove_unless(image, |_| {
                let now = store.list()?;
                let image = now.iter().find(|image| image.id == id);
                let pods = users(pods)?;
                Ok(!image.is_some_and(|image| self.is_due(image, &pods)))
            });
            match removed {
                Ok(true) => crate::print_line(&id)?,
                Ok(false) => {}
                Err(error) => {
                    crate::warn(&error);
                    code = crate::FAILED;
                }
            }
        }
        // What an import left that was killed.
        store.trim_layers()?;
        let images: HashSet<_> = store.list()?.into_iter().map(|image| image.id).collect();
        let is_due = |name: &str, idle| {
            let is_orphan = is_id(name) && !images.contains(name);
            is_orphan || idle >= self.grace_period
        };
        for name in stage1::collect(data, is_due)? {
            crate::print_line(&format!("stage1/{name}"))?;
        }
        let is_kept = |id: &str| images.contains(id);
        acis::collect(&store.downloads(), self.grace_period, is_kept);
        Blobs::new(store.blobs()).collect(self.grace_period)?;
        Ok(code)
    }

    fn is_due(&self, image: &Image, users: &BTreeMap<String, Vec<String>>) -> bool {
        let idle = SystemTime::now().duration_since(image.used);
        !users.contains_key(&image.id)
            && (self.all || image.names.is_empty())
            && idle.is_ok_and(|idle| idle >= self.grace_period)
    }
}
