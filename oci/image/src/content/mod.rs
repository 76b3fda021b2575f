//! The content-addressed store of blobs. It knows nothing of images, layers or archives: those modules add their own
//! methods to [`store::Store`].

pub(crate) mod bounded;
pub(crate) mod ingest;
pub(crate) mod pending;
pub(crate) mod store;
pub(crate) mod upload;
