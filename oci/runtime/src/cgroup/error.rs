//! Errors of cgroups.

use std::{io, path::PathBuf};

use crate::state_dir;

/// Why a cgroup could not be created, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable cgroup hierarchy.
    #[error(
        "no cgroup hierarchy with the memory and pids controllers is mounted and shows this process's own cgroup ({detail}): \
         mount /sys/fs/cgroup, or run on the host"
    )]
    NoHierarchy {
        /// What was found instead.
        detail: String,
    },
    /// A path that leads out of the base cgroup.
    #[error("the cgroup path {0:?} must be relative and without `..`")]
    BadPath(String),
    /// A directory cannot be created.
    #[error("cannot create the cgroup {path}: {source}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A v2 controller cannot be delegated to children.
    #[error("cannot enable the controllers {controllers} below the cgroup {path}: {source}")]
    Enable {
        /// The parent.
        path: PathBuf,
        /// `+name` for each.
        controllers: String,
        /// Why.
        source: io::Error,
    },
    /// A limit is refused.
    #[error("cannot set {what} of the cgroup {path}: {reason}")]
    Limit {
        /// Kind of limit.
        what: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file does not accept a value.
    #[error("cannot write {value:?} to {file}: {source}")]
    Setting {
        /// The file.
        file: PathBuf,
        /// The value.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A process cannot be moved into the cgroup.
    #[error("cannot move process {pid} into the cgroup {path}: {source}")]
    Join {
        /// The process.
        pid: i32,
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cgroup cannot be removed.
    #[error("cannot remove the cgroup {path}: {source}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state directory cannot be read.
    #[error(transparent)]
    StateDir(#[from] state_dir::Error),
}
