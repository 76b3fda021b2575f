//! What can go wrong with images.

use std::path::PathBuf;

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store or the layers' directory cannot be used.
    #[error("cannot use the images in {path}: {source}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<tucano_oci_image::Error>,
    },
    /// Images of layers were asked for and cannot be mounted.
    #[error("layers cannot be unpacked to EROFS images: {0}; or set images.unpack to \"auto\"")]
    NoErofs(#[source] Box<tucano_oci_image::Error>),
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[source] tucano_oci_distribution::client::Error),
    /// A digest that is none.
    #[error("{0} is not a digest that this agent knows")]
    Digest(String),
    /// The controller did not give a blob.
    #[error("cannot fetch {digest} from {url}: {reason}")]
    Fetch {
        /// The blob.
        digest: String,
        /// Where it was asked for.
        url: String,
        /// Why it was not given.
        reason: String,
    },
    /// A blob is not what it should be, or cannot be stored.
    #[error("cannot store {digest}: {source}")]
    Store {
        /// The blob.
        digest: String,
        /// Why.
        #[source]
        source: Box<tucano_oci_image::Error>,
    },
    /// The image's documents make no sense.
    #[error("image {digest}: {source}")]
    Image {
        /// The manifest.
        digest: String,
        /// Why.
        #[source]
        source: Box<tucano_oci_image::Error>,
    },
    /// The image is for another kind of machine.
    #[error("image {digest} is for {image}, and this node is {node}: build the image for {node}")]
    WrongPlatform {
        /// The manifest.
        digest: String,
        /// What the image is for.
        image: String,
        /// What the node is.
        node: String,
    },
    /// A layer cannot be unpacked.
    #[error("cannot unpack layer {digest}: {source}")]
    Unpack {
        /// The layer's blob.
        digest: String,
        /// Why.
        #[source]
        source: Box<tucano_oci_image::Error>,
    },
    /// An unpacked layer cannot be checked.
    #[error("cannot check layer {diff_id}: {source}")]
    Check {
        /// The layer.
        diff_id: String,
        /// Why.
        #[source]
        source: Box<tucano_oci_image::Error>,
    },
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

impl Error {
    /// Whether the layer must be fetched again, to become a directory.
    pub(super) fn is_too_many_to_index(&self) -> bool {
        matches!(self, Self::Unpack { source, .. } if matches!(**source, tucano_oci_image::Error::TooManyToIndex(_)))
    }

    /// Whether a document was not what its digest says when it was read.
    pub(super) fn is_digest_mismatch(&self) -> bool {
        matches!(self, Self::Image { source, .. } if source.code() == "digest_mismatch")
    }
}
