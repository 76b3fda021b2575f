//! Errors of images.

use std::path::PathBuf;

/// Why an image is not available.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store or the layers' directory cannot be used.
    #[error("cannot use the images in {path}: {source}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<tucano_oci_image::Error>,
    },
    /// EROFS is required and does not work.
    #[error(
        "EROFS images of layers do not work on this node: {0}; set images.unpack = \"auto\" in agent.toml"
    )]
    NoErofs(#[source] Box<tucano_oci_image::Error>),
    /// The HTTP client cannot be built.
    #[error("cannot build an HTTP client: {0}")]
    Client(#[source] tucano_oci_distribution::client::Error),
    /// A malformed digest, or one of an unknown algorithm.
    #[error("{0} is not a valid digest")]
    Digest(String),
    /// A blob cannot be fetched.
    #[error("cannot fetch {digest} from {url}: {reason}")]
    Fetch {
        /// The blob.
        digest: String,
        /// The controller's URL.
        url: String,
        /// The cause.
        reason: String,
    },
    /// A blob does not match its digest, or cannot be stored.
    #[error("cannot store {digest}: {source}")]
    Store {
        /// The blob.
        digest: String,
        /// The cause.
        #[source]
        source: Box<tucano_oci_image::Error>,
    },
    /// The image's manifest or configuration is invalid.
    #[error("image {digest}: {source}")]
    Image {
        /// The manifest.
        digest: String,
        /// The cause.
        #[source]
        source: Box<tucano_oci_image::Error>,
    },
    /// The image is for another platform.
    #[error("image {digest} is for {image}, and this node is {node}: build the image for {node}")]
    WrongPlatform {
        /// The manifest.
        digest: String,
        /// The image's platform.
        image: String,
        /// The node's platform.
        node: String,
    },
    /// A layer cannot be unpacked.
    #[error("cannot unpack layer {digest}: {source}")]
    Unpack {
        /// The layer's blob.
        digest: String,
        /// The cause.
        #[source]
        source: Box<tucano_oci_image::Error>,
    },
    /// A layer was refused too often to be fetched again.
    #[error("{reason} (refused {tries} times; it is not fetched again: deploy another image)")]
    Refused {
        /// How often.
        tries: u32,
        /// The last reason.
        reason: String,
    },
    /// An unpacked layer cannot be verified.
    #[error("cannot verify layer {diff_id}: {source}")]
    Check {
        /// The layer.
        diff_id: String,
        /// The cause.
        #[source]
        source: Box<tucano_oci_image::Error>,
    },
    /// An image that is to be mounted is not available.
    #[error("the image that is mounted on {path}: {source}")]
    Mounted {
        /// Its path in the container.
        path: String,
        /// The cause.
        #[source]
        source: Box<Error>,
    },
    /// The controller has not said which image is mounted.
    #[error("the desired set does not say which image is mounted on {0}")]
    Unresolved(String),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

impl Error {
    /// Whether the layer has too many entries for EROFS and must be unpacked to a directory.
    pub(super) fn is_too_many_to_index(&self) -> bool {
        matches!(self, Self::Unpack { source, .. } if matches!(**source, tucano_oci_image::Error::TooManyToIndex(_)))
    }

    /// Whether a document did not match its digest.
    pub(super) fn is_digest_mismatch(&self) -> bool {
        matches!(self, Self::Image { source, .. } if source.code() == "digest_mismatch")
    }
}
