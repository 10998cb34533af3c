//! What an app has made of its image's files and is to be run as, as an image above that one: a layer of what differs, and a
//! manifest. Called by the store's import, on its thread.

mod before;
mod difference;
mod instruction;
mod manifest;
#[cfg(test)]
mod tests;

pub use difference::difference;
pub use instruction::Instruction;
pub use manifest::manifest;

use crate::store::Image;

/// How an image is made of the files of an app.
#[derive(Clone, Debug)]
pub struct Commit<'a> {
    /// The image that the app ran from.
    pub base: &'a Image,
    /// What the files are called in the tar that holds them.
    pub root: &'a str,
    /// How it is run otherwise than the base.
    pub instructions: &'a [Instruction],
    /// Who has made it.
    pub author: Option<&'a str>,
    /// What its maker says of it.
    pub message: Option<&'a str>,
    /// When the app had made its files: RFC 3339.
    pub created: &'a str,
    /// Makes it of one layer, with nothing of the base below.
    pub squash: bool,
}
