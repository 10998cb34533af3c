//! Where an image comes from, in the words of a policy: a transport, and scopes in it.

use std::path::Path;

use image::oci::Reference;

/// The transport of registries.
pub const DOCKER: &str = "docker";

/// Transports whose scopes are paths.
pub const OF_PATHS: [&str; 3] = ["oci", "oci-archive", "dir"];

/// Transports that have no scopes but the empty one.
pub const WITHOUT_SCOPES: [&str; 2] = ["docker-archive", "tarball"];

/// A place that an image is taken from.
#[derive(Clone, Debug)]
pub struct Place {
    pub(super) transport: &'static str,
    /// The most specific first.
    pub(super) scopes: Vec<String>,
}

impl Place {
    /// A registry, under the name that was asked for, whatever mirror it comes from.
    pub fn registry(name: &Reference) -> Self {
        Self {
            transport: DOCKER,
            scopes: name.scopes(),
        }
    }

    /// An OCI layout at `path`, which follows no link, a folder or (`archive`) in a tar, whichever of its images is taken.
    pub fn layout(path: &Path, archive: bool) -> Self {
        let path = path.to_string_lossy();
        let above = path
            .rmatch_indices('/')
            .map(|(at, _)| path[..at].to_owned());
        // There is no scope / but the transport's own.
        let above = above.filter(|folder| !folder.is_empty());
        Self {
            transport: if archive { "oci-archive" } else { "oci" },
            scopes: [path.to_string()].into_iter().chain(above).collect(),
        }
    }

    /// An archive of `docker save`.
    pub fn docker_archive() -> Self {
        Self {
            transport: "docker-archive",
            scopes: Vec::new(),
        }
    }

    /// A tar of a root file system.
    pub fn tarball() -> Self {
        Self {
            transport: "tarball",
            scopes: Vec::new(),
        }
    }
}
