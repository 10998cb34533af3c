//! Container images: formats read, layers merged into one EROFS file, the store that keeps them.
//!
//! Used by the `fairing` command. Runs on the caller's thread, needs no root, and never unpacks an image on the host.
#![warn(missing_docs)]

mod blob;
mod commit;
mod decompress;
mod digest;
mod ending;
mod erofs;
mod folder;
mod held;
mod layer;
mod limits;
mod outgoing;
mod received;
mod reference;
mod scopes;
mod scratch;
mod source;
mod store;
mod stored;
mod tree;

/// Names, documents and digests of OCI images, for who has an image to fetch, to send or to vouch for.
pub mod oci {
    pub use crate::digest::{Algorithm, Digest, Hash};
    pub use crate::reference::{DOCKER_HOST, Reference, has_host, is_name};
    pub use crate::source::document::{
        Descriptor, Index, MAX_JSON_BYTES, Manifest, Platform, RootFs, parse,
    };
    pub use crate::source::layers::{MAX_LAYERS, check_platform};
    pub use crate::source::layout::{INDEX, MARK};
    pub use crate::source::select::{
        Candidate, Documents, Several, is_configuration, is_index, select,
    };
}

pub use commit::{Commit, Instruction};
pub use erofs::{Finished, Losses, Writer};
pub use held::is_at;
pub use limits::Limits;
pub use outgoing::write_aci;
pub use received::{Place, extract, reframe};
pub use source::convert::appc_architecture;
pub use source::document::History;
pub use source::storage::Storage;
pub use source::{Form, Progress};
pub use store::identity::is_id;
pub use store::{
    Archive, Desk, Image, ImportOptions, Kind, LayerRef, LayerSpace, Lease, MissingDependencies,
    SHARED_LAYERS, Store,
};
