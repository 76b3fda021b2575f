//! A registry as the OCI distribution specification (1.1) has it: what tools push images to and pull them from, over
//! the content-addressed store of `tucano_oci_image`. Knows nothing of clusters, and leaves it to its user who may
//! speak to it.
//!
//! - [`Registry`] (`registry`): what is asked of it, without HTTP; blocking.
//! - `references`: which repository has which blobs, manifests and tags, in an SQLite database beside the blobs.
//! - `sessions`: blobs on their way in. They live in memory and in scratch files only: after a crash they are gone.
//! - `manifest`: manifests and indexes, checked; [`Name`], [`Tag`] and [`Reference`] (`name`).
//! - [`router`] (`http`): the protocol.
//!
//! A repository has what was pushed to it or mounted into it. What no tag leads to is forgotten after
//! [`Limits::untagged_kept`], so that a push under way and what was pushed by digest stay for a while. Forgetting and
//! removing are one step that no push can come between: see [`Registry::collect`].

mod error;
mod http;
mod limits;
mod manifest;
mod name;
mod references;
mod registry;
mod sessions;

pub use error::Error;
pub use http::{API_VERSION, router};
pub use limits::Limits;
pub use name::{BadName, Name, Reference, Tag, Which};
pub use registry::Registry;
