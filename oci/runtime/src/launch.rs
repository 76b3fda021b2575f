//! What to start, and how it ended.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

/// Everything that the supervisor needs to start one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// The container's id: a file name.
    pub id: String,
    /// The container's home directory, absolute.
    pub home: PathBuf,
    /// OCI runtime configuration. `linux.namespaces[network].path` names a network namespace to join, such as
    /// `/proc/<pid>/fd/<n>` of the caller, which must live until the start is reported.
    /// `linux.cgroupsPath` begins where cgroups are mounted if it has a leading slash, else at the caller's own cgroup.
    pub spec: Spec,
    /// Where the root file system comes from.
    pub rootfs: Rootfs,
    /// `user`, `uid`, `user:group` or `uid:gid`, looked up in the root file system's own passwd and group files
    /// (bounded in size); takes the place of `spec.process.user`'s uid, gid and additional groups.
    pub user: Option<String>,
    /// Bounds of what is kept of stdout and stderr.
    pub logs: LogLimits,
}

/// What of a [`Launch`] a container is made from, wherever that is kept: a specification is too large to be copied for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) home: &'a Path,
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) user: Option<&'a str>,
}

impl Launch {
    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts {
            spec: &self.spec,
            home: &self.home,
            rootfs: &self.rootfs,
            user: self.user.as_deref(),
        }
    }
}

/// Where the root file system comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// `spec.root.path`, as it is.
    Bundle,
    /// An overlay of these directories, lowest first, beneath `upper/` and `work/` of the home directory. Mounted in the
    /// container's own mount namespace, so that nothing of it remains. With a user namespace the layers are
    /// id-mapped, never changed.
    Overlay {
        /// The lower directories.
        layers: Vec<PathBuf>,
    },
}

/// Bounds of what is kept of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Largest file, in bytes; it is rotated when full.
    pub file_bytes: u64,
    /// Number of files kept, the current one among them: at least 1.
    pub files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            file_bytes: 10 << 20,
            files: 3,
        }
    }
}

/// How a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, where it ended by itself.
    pub code: Option<i32>,
    /// Signal number, where a signal ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed in its cgroup for lack of memory.
    pub oom_killed: bool,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}
