//! A bar on stderr while an image is fetched and imported; nothing where stderr is no terminal.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What a bar shows.
const TEMPLATE: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";

/// What is faster than this shows no bar, in milliseconds.
const PATIENCE_MS: u64 = 300;

/// The bar of one image.
pub struct Progress {
    bar: ProgressBar,
    image: String,
    begun: std::time::Instant,
}

impl Progress {
    /// A bar for the import of `path`.
    pub fn new(path: &Path, quiet: bool) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self::of_name(&name.to_string_lossy(), quiet)
    }

    /// A bar for the image called `name`.
    pub fn of_name(name: &str, quiet: bool) -> Self {
        let bar = ProgressBar::new(0);
        if quiet || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Self {
            bar,
            image: name.to_owned(),
            begun: std::time::Instant::now(),
        }
    }

    /// Shows one step.
    pub fn tell(&self, step: image::Progress) {
        if self.begun.elapsed() < Duration::from_millis(PATIENCE_MS) {
            return;
        }
        match step {
            image::Progress::Layer {
                index,
                of,
                bytes_done,
                bytes_total,
            } => {
                self.bar.set_length(bytes_total.max(bytes_done));
                self.bar
                    .set_message(format!("{} layer {index} of {of}", self.image));
                self.bar.set_position(bytes_done);
            }
            image::Progress::Writing => {
                self.bar.set_message(format!("{} writing", self.image));
                self.bar.tick();
            }
        }
    }

    /// Shows how far a pull is.
    pub fn tell_pull(&self, step: registry::Progress) {
        if self.begun.elapsed() < Duration::from_millis(PATIENCE_MS) {
            return;
        }
        self.bar.set_length(step.bytes_total.max(step.bytes_done));
        self.bar
            .set_message(format!("{} {} layers", self.image, step.layers));
        self.bar.set_position(step.bytes_done);
    }

    /// Shows how far a push is.
    pub fn tell_push(&self, bytes_done: u64, bytes_total: u64) {
        self.bar.set_length(bytes_total);
        self.bar.set_message(self.image.clone());
        self.bar.set_position(bytes_done);
    }

    /// Shows how much of a file has come.
    pub fn tell_bytes(&self, bytes_done: u64, bytes_total: Option<u64>) {
        if self.begun.elapsed() < Duration::from_millis(PATIENCE_MS) {
            return;
        }
        self.bar
            .set_length(bytes_total.unwrap_or(0).max(bytes_done));
        self.bar.set_message(self.image.clone());
        self.bar.set_position(bytes_done);
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
