//! The plan of an app that a running pod is given: part of [`plan`](super).

use anyhow::{Context, Result};
use contract::RunArguments;
use contract::pod::PodManifest;
use guest_init::protocol::{self, Window};

use super::{Planner, PreparedImage};
use crate::volumes::Share;

/// Size of a terminal that nobody looks at: that of the VT100.
const NOBODYS_WINDOW: Window = Window {
    rows: 24,
    columns: 80,
};

/// An app that a running pod is given.
#[derive(Debug)]
pub struct AddedApp {
    /// The app; where its root is an image, that is number 0.
    pub app: protocol::App,
    /// How it is asked to end.
    pub stop_signal: i32,
    /// Folders and files of the host that it needs, by number.
    pub shares: Vec<Share>,
    /// What the user should know and nothing fails for.
    pub warnings: Vec<String>,
}

impl AddedApp {
    /// Resolves the app `name` of `pod`, whose app `n` runs from `images[n]`; `arguments` are the pod's.
    ///
    /// # Errors
    /// As [`Plan::new`](super::Plan::new)'s.
    pub fn new(
        pod: &PodManifest,
        images: &[PreparedImage],
        name: &str,
        arguments: &RunArguments,
    ) -> Result<Self> {
        // What its caller types is not for apps that come later.
        let arguments = &RunArguments {
            interactive: false,
            ..arguments.clone()
        };
        let mut apps = pod.apps.iter().zip(images);
        let (pod_app, image) = apps
            .find(|(app, _)| app.name == name)
            .with_context(|| format!("the pod manifest has no app {name:?}"))?;
        // For an app that wants a terminal, until somebody attaches one.
        let mut planner = Planner::new(pod, arguments, Some(NOBODYS_WINDOW))?;
        let (app, stop_signal) = planner.app(0, pod_app, image)?;
        planner.warnings.append(&mut planner.volumes.warnings);
        Ok(Self {
            app,
            stop_signal,
            shares: planner.volumes.shares,
            warnings: planner.warnings,
        })
    }
}

/// Gives the shares of `app` other numbers, which are there by those that it has.
pub fn renumber(app: &mut protocol::App, numbers: &[u16]) {
    let renumbered = |number: &mut u16| {
        if let Some(new) = numbers.get(usize::from(*number)) {
            *number = *new;
        }
    };
    if let protocol::Root::Share(number) = &mut app.root {
        renumbered(number);
    }
    for mount in &mut app.mounts {
        if let protocol::Volume::Share { number, .. } = &mut mount.volume {
            renumbered(number);
        }
    }
}
