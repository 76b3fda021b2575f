//! Why an image was refused.

use std::{
    io,
    path::{Path, PathBuf},
};

use oci_spec::image::Digest;
use rustix::io::Errno;

/// The codes of errors with a single layer.
const CODES: [&str; 8] = [
    "io",
    "unpacking_failed",
    "disk_full",
    "unsupported",
    "too_large",
    "malformed",
    "digest_mismatch",
    "layer_path_escapes",
];

/// Why an image was refused. `code()` is short and stable, for programs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Such as `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The disk, or the quota on it, is full.
    #[error("no space left on the disk to {action} {}: free some space, or use a larger disk", path.display())]
    DiskFull {
        /// Such as `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Reading the archive's stream failed.
    #[error("the archive could not be received: {0}")]
    Receive(#[source] io::Error),
    /// The archive's stream ended too early.
    #[error("the archive is truncated: it ends within {within}; send it again")]
    ArchiveTruncated {
        /// The truncated part.
        within: String,
    },
    /// Not a tar, or a broken one.
    #[error(
        "not an OCI or Docker archive: {reason}; make one with `docker save`, `podman save` or \
         `skopeo copy … oci-archive:FILE`"
    )]
    NotAnArchive {
        /// What is wrong.
        reason: String,
    },
    /// Something valid that this implementation does not support.
    #[error("{what} is not supported{hint}")]
    Unsupported {
        /// What was found.
        what: String,
        /// What to use instead; begins with a separator, or is empty.
        hint: &'static str,
    },
    /// A limit of [`crate::Limits`] is exceeded.
    #[error("{what} is larger than the limit of {limit}")]
    TooLarge {
        /// What was measured.
        what: String,
        /// The limit with its unit.
        limit: String,
    },
    /// A document cannot be parsed.
    #[error("{what} is malformed: {source}")]
    Document {
        /// Which document.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A document is well-formed, but inconsistent.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// Which part of the image.
        what: String,
        /// Why.
        reason: String,
    },
    /// Content does not match its digest.
    #[error("{what} does not match its digest: expected {expected}, found {actual}")]
    DigestMismatch {
        /// Which part of the image.
        what: String,
        /// The expected digest.
        expected: Digest,
        /// The actual digest.
        actual: Digest,
    },
    /// A blob's size differs from its descriptor's.
    #[error("{what} has {actual} bytes, and its descriptor says {expected}")]
    SizeMismatch {
        /// Which part of the image.
        what: String,
        /// Bytes, by the descriptor.
        expected: u64,
        /// Bytes.
        actual: u64,
    },
    /// A blob that the image refers to is not in the archive.
    #[error("{what} ({digest}) is missing from the archive")]
    BlobMissing {
        /// Which part of the image.
        what: String,
        /// Its digest.
        digest: Digest,
    },
    /// More than one image matches.
    #[error(
        "the archive has several images ({}); select one by its name, or send an archive with a single image",
        names.join(", ")
    )]
    SeveralImages {
        /// Their names or digests.
        names: Vec<String>,
    },
    /// The archive has no image with the requested name.
    #[error("the archive has no image {wanted:?}, only {}", names.join(", "))]
    NoSuchImage {
        /// The requested name.
        wanted: String,
        /// The existing names or digests.
        names: Vec<String>,
    },
    /// The image is for other platforms.
    #[error("the image is for {}, but the nodes need {wanted}", has.join(", "))]
    WrongArchitecture {
        /// The image's platforms.
        has: Vec<String>,
        /// The nodes' platform.
        wanted: String,
    },
    /// A path in a layer leads out of it.
    #[error("layer {layer} has an entry {path:?} that leads out of it")]
    LayerPathEscapes {
        /// The layer's diff-id.
        layer: Digest,
        /// As the entry has it.
        path: String,
    },
    /// A layer is not a valid tar, or has an invalid entry.
    #[error("layer {layer} is malformed: {reason}")]
    LayerMalformed {
        /// The layer's diff-id.
        layer: Digest,
        /// Why, with the entry.
        reason: String,
    },
    /// An entry of a layer could not be created.
    #[error("cannot create {path:?} of layer {layer}: {source}")]
    LayerEntry {
        /// The layer's diff-id.
        layer: Digest,
        /// The entry.
        path: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// An unpacked layer has changed since it was unpacked.
    #[error(
        "layer {layer} was damaged on the disk ({reason}): it was moved away, and must be unpacked again"
    )]
    LayerDamaged {
        /// The layer's diff-id.
        layer: Digest,
        /// The difference.
        reason: String,
    },
    /// A layer's image cannot be mounted.
    #[error("cannot mount {}: {source}; with `unpack = \"directories\"` layers need no mounts", path.display())]
    Mount {
        /// The image.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A layer has too many entries for an index.
    #[error(
        "layer {0} has more entries than an EROFS image may have, or its names and attributes exceed layer_tree_bytes"
    )]
    TooManyToIndex(Digest),
    /// A process of the image could not start.
    #[error("a process of the image cannot start: {0}")]
    CannotRun(String),
    /// The unpacking process ended without a report, repeatedly.
    #[error(
        "layer {layer} is refused: the process that unpacks it has died {tries} times, last by {reason}"
    )]
    UnpackerDied {
        /// The layer's digest.
        layer: Digest,
        /// How often.
        tries: u32,
        /// How it ended.
        reason: String,
    },
    /// A blob is not in the store.
    #[error("{0} is not in the store")]
    NotFound(Digest),
    /// An error that the unpacking process reported.
    #[error("{message}")]
    FromHelper {
        /// Its code.
        code: &'static str,
        /// Its text.
        message: String,
    },
    /// The unpacking process failed without a report.
    #[error("the process that unpacks layers failed: {0}")]
    Helper(String),
    /// The unpacking process was killed, or ended with an error.
    #[error("the process that unpacks layers ended with {0}; its own log lines say why")]
    HelperDied(String),
}

impl Error {
    /// Short and stable: `archive_truncated`, `digest_mismatch`, `layer_path_escapes`, `wrong_architecture`,
    /// `several_images`, `no_such_image`, `blob_missing`, `too_large`, `disk_full`, `unsupported`, `malformed`, `not_found`,
    /// `layer_damaged`, `unpacking_failed`, `cannot_run`, `io`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::Receive(_) | Self::LayerEntry { .. } | Self::Mount { .. } => {
                "io"
            }
            Self::DiskFull { .. } => "disk_full",
            Self::ArchiveTruncated { .. } => "archive_truncated",
            Self::Unsupported { .. } => "unsupported",
            Self::TooLarge { .. } | Self::TooManyToIndex(_) => "too_large",
            Self::LayerDamaged { .. } => "layer_damaged",
            Self::NotAnArchive { .. }
            | Self::Document { .. }
            | Self::Malformed { .. }
            | Self::LayerMalformed { .. } => "malformed",
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => "digest_mismatch",
            Self::BlobMissing { .. } => "blob_missing",
            Self::SeveralImages { .. } => "several_images",
            Self::NoSuchImage { .. } => "no_such_image",
            Self::WrongArchitecture { .. } => "wrong_architecture",
            Self::LayerPathEscapes { .. } => "layer_path_escapes",
            Self::NotFound(_) => "not_found",
            Self::FromHelper { code, .. } => code,
            Self::CannotRun(_) => "cannot_run",
            Self::Helper(_) => "io",
            Self::HelperDied(_) | Self::UnpackerDied { .. } => "unpacking_failed",
        }
    }

    /// An error that the unpacking process reported.
    pub(crate) fn from_helper(code: &str, message: String) -> Self {
        let known = CODES.into_iter().find(|known| *known == code);
        Self::FromHelper {
            code: known.unwrap_or("io"),
            message,
        }
    }

    /// Whether damaged bytes may be the cause.
    pub(crate) fn is_of_content(&self) -> bool {
        matches!(self, Self::LayerMalformed { .. })
    }

    /// An error with a file; a full disk has its own variant.
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.to_owned(), source.into());
        if is_disk_full(&source) {
            Self::DiskFull {
                action,
                path,
                source,
            }
        } else {
            Self::Io {
                action,
                path,
                source,
            }
        }
    }

    pub(crate) fn malformed(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed {
            what: what.into(),
            reason: reason.into(),
        }
    }
}

pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Distinguishes what is wrong with the layer from what is wrong with the node.
pub(crate) fn entry_error(layer: &Digest, path: &[u8], errno: Errno) -> Error {
    let path = String::from_utf8_lossy(path).into_owned();
    let source = io::Error::from(errno);
    if is_disk_full(&source) {
        return Error::DiskFull {
            action: "unpack",
            path: path.into(),
            source,
        };
    }
    let problem = match errno {
        Errno::NOENT => "it refers to a file that the layer does not have",
        Errno::LOOP | Errno::XDEV => "it refers to a file through symbolic links",
        Errno::NOTDIR => "its parent is not a directory",
        Errno::EXIST => "it already exists",
        Errno::ISDIR => "it is a hard link to a directory",
        Errno::NAMETOOLONG => "its path is too long",
        Errno::INVAL | Errno::RANGE => "the kernel refuses its values",
        Errno::TOOBIG => "its extended attributes are too large, or too large together",
        Errno::MLINK => "more directories without an entry of their own than limits.layer_entries",
        _ => {
            return Error::LayerEntry {
                layer: layer.clone(),
                path,
                source,
            };
        }
    };
    let reason = format!("entry {path:?} cannot be created: {problem} ({errno})");
    Error::LayerMalformed {
        layer: layer.clone(),
        reason,
    }
}
