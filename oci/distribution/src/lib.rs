//! A registry as the OCI distribution specification (1.1) has it: what tools push images to and pull them from, over
//! the content-addressed store of `tucano_oci_image`. Knows nothing of clusters, and leaves it to its user who may
//! speak to it.
//!
//! - [`Registry`] (`registry`): what is asked of it, without HTTP; blocking.
//! - `references`: which repository has which blobs, manifests and tags, in an SQLite database beside the blobs.
//! - `sessions`: blobs on their way in. What has come of one survives the program: below `uploads/`, beside the blobs.
//! - `manifest`: manifests and indexes, checked; [`Name`], [`Tag`] and [`Reference`] (`name`).
//! - [`router`] (`http`): the protocol.
//! - [`client`]: the other side of the protocol (feature `client`; all the above but the names is feature `server`).
//!
//! A repository has what was pushed to it or mounted into it. What no tag leads to is forgotten after
//! [`Limits::untagged_kept`], so that a push under way and what was pushed by digest stay for a while. Forgetting and
//! removing are one step that no push can come between: see [`Registry::collect`].

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
mod error;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
mod limits;
#[cfg(feature = "server")]
mod manifest;
mod name;
#[cfg(feature = "server")]
mod references;
#[cfg(feature = "server")]
mod registry;
#[cfg(feature = "server")]
mod sessions;

pub use name::{BadName, Name, Reference, Tag, Which};
#[cfg(feature = "server")]
pub use {
    error::Error,
    http::{API_VERSION, router},
    limits::Limits,
    registry::Registry,
};
