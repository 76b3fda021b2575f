//! An image's documents: its manifest, its configuration, and the indexes that lead to them.

pub(crate) mod description;
pub(crate) mod document;
pub(crate) mod healthcheck;
pub(crate) mod image;
pub(crate) mod layout_index;
pub(crate) mod names;
pub(crate) mod registry_index;
mod stored;
