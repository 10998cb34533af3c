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
        match step {
            image::Progress::Layer {
                index,
                of,
                bytes_done,
                bytes_total,
            } => {
                let what = || format!("{} layer {index} of {of}", self.image);
                self.show(what, bytes_done, bytes_total);
            }
            image::Progress::Writing if self.is_long() => {
                self.bar.set_message(format!("{} writing", self.image));
                self.bar.tick();
            }
            image::Progress::Writing => {}
        }
    }

    /// Shows how far a pull is.
    pub fn tell_pull(&self, step: registry::Progress) {
        let what = || format!("{} {} layers", self.image, step.layers);
        self.show(what, step.bytes_done, step.bytes_total);
    }

    /// Shows how much of it has come or gone, of how much where that is known.
    pub fn tell_bytes(&self, bytes_done: u64, bytes_total: Option<u64>) {
        self.show(|| self.image.clone(), bytes_done, bytes_total.unwrap_or(0));
    }

    fn show(&self, what: impl FnOnce() -> String, bytes_done: u64, bytes_total: u64) {
        if self.is_long() {
            self.bar.set_length(bytes_total.max(bytes_done));
            self.bar.set_message(what());
            self.bar.set_position(bytes_done);
        }
    }

    fn is_long(&self) -> bool {
        self.begun.elapsed() >= Duration::from_millis(PATIENCE_MS)
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
