//! The tree of a volume as it is copied between workers: never the blocks of its file system, which the other kernel would have to
//! trust.
//!
//! - [`entry`]: the manifest: every entry in the order of the walk, and what a reader checks of it;
//! - [`walk`]: the walk of the worker that has the volume, and the three streams that it sends;
//! - [`frames`]: the stream of contents;
//! - [`target`]: what a confined process does with them on the other worker; [`compare`] is its comparison.

mod attributes;
pub mod compare;
pub mod entry;
pub mod frames;
mod position;
pub mod target;
#[cfg(test)]
mod tests;
pub mod walk;

use std::io;

/// Maximum depth of directories; each level takes a descriptor.
pub const DEPTH_LIMIT: usize = 256;

/// Why a copy does not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// What the other worker sent breaks the protocol, or is not what its manifest says.
    #[error("what the other worker sends is malformed: {0}")]
    Malformed(String),
    /// The other worker says why it cannot go on.
    #[error("the other worker says: {0}")]
    Refused(String),
    /// The tree cannot be represented on another worker, or exceeds a limit.
    #[error("{0}")]
    Unsupported(String),
    /// The volume has no room for its content.
    #[error(
        "its content does not fit into a new volume of its size: make it larger by `size` first"
    )]
    Full,
    /// The stream ended early.
    #[error("the other worker's answer ended early")]
    Incomplete,
    /// A file operation failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The entry.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Fault {
    /// Whether another attempt would end the same way.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Unsupported(_) | Self::Full)
    }

    fn io(what: &'static str, path: String, error: impl Into<io::Error>) -> Self {
        let source = error.into();
        match super::room::is_full(&source) {
            true => Self::Full,
            false => Self::Io { what, path, source },
        }
    }

    /// Of the stream from the other worker.
    fn stream(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Incomplete,
            _ => Self::Io {
                what: "read",
                path: "the other worker's answer".to_owned(),
                source: error,
            },
        }
    }
}
