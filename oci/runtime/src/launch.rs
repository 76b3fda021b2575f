//! The request to start a container, and its exit status.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::{
    channel::{Failure, Step},
    state_dir::StateDir,
};

/// Everything that a supervisor needs to start a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// The container's id: a file name.
    pub id: String,
    /// State directory of the container, absolute.
    #[serde(rename = "home")]
    pub state_dir: PathBuf,
    /// OCI runtime configuration. `linux.namespaces[network].path` names a network namespace to join, such as
    /// `/proc/<pid>/fd/<n>` of the caller, which must stay alive until the start is reported. An absolute
    /// `linux.cgroupsPath` starts at the cgroup mount point, a relative one at the caller's own cgroup.
    pub spec: Spec,
    /// Source of the root file system.
    pub rootfs: Rootfs,
    /// `user`, `uid`, `user:group` or `uid:gid`, resolved in the root file system's passwd and group files. Replaces
    /// uid and gid of `spec.process.user`; its groups come beside the additional ones there.
    pub user: Option<String>,
    /// Limits of the stdout and stderr log files.
    pub logs: LogLimits,
    /// Whether the program runs below an init of the runtime's, which reaps orphans and forwards signals.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// File with further variables of the environment, each `NAME=value` and a NUL, which take precedence: those that must not be in
    /// `launch.json`. It is read at each start and by each command in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_file: Option<PathBuf>,
}

/// Borrowed parts of a [`Launch`]: a specification is too large to be cloned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) state_dir: &'a Path,
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) user: Option<&'a str>,
}

impl Launch {
    /// The request in a state directory, with the variables of its file; `None` if there is none.
    pub(crate) fn read(state_dir: StateDir<'_>) -> Result<Option<Self>, Failure> {
        let launch = state_dir.read::<Self>("launch.json");
        let Some(mut launch) = launch.step("state_dir directory")? else {
            return Ok(None);
        };
        let variables = launch.read_environment_file().step("environment")?;
        if let Some(process) = launch.spec.process_mut() {
            let mut all = process.env().clone().unwrap_or_default();
            all.extend(variables);
            process.set_env(Some(all));
        }
        Ok(Some(launch))
    }

    fn read_environment_file(&self) -> io::Result<Vec<String>> {
        let Some(path) = &self.environment_file else {
            return Ok(Vec::new());
        };
        let unusable = |error: String| {
            let message = format!("the variables in {}: {error}", path.display());
            io::Error::other(message)
        };
        let text = fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let variables = text.split(|byte| *byte == 0).filter(|it| !it.is_empty());
        let variables = variables.map(|it| String::from_utf8(it.to_vec()));
        variables
            .collect::<Result<_, _>>()
            .map_err(|_| unusable("they are not UTF-8".to_owned()))
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts {
            spec: &self.spec,
            state_dir: &self.state_dir,
            rootfs: &self.rootfs,
            user: self.user.as_deref(),
        }
    }
}

/// Source of the root file system.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// `spec.root.path`.
    Bundle,
    /// An overlay of these directories, lowest first, with `upper/` and `work/` of the state directory. It is mounted
    /// in the container's mount namespace and vanishes with it. With a user namespace the layers are id-mapped, never
    /// modified.
    Overlay {
        /// Lower directories.
        layers: Vec<PathBuf>,
        /// Directories of the container that stay writable where `spec.root.readonly` is set, such as the declared
        /// volumes of an image. What is written there is in `upper/`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        writable: Vec<PathBuf>,
        /// Other images whose files the container has. They are mounted before the mounts of the specification.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        images: Vec<MountedImage>,
    },
}

/// An image that is mounted into a container: an overlay of its layers that nobody can write to. It vanishes with the container's
/// mount namespace. With a user namespace the layers are id-mapped as those of the root are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedImage {
    /// Its path in the container. A missing directory is created.
    pub destination: PathBuf,
    /// The directories of its layers, lowest first.
    pub layers: Vec<PathBuf>,
}

/// Limits of one stream's log files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Maximum size of a file in bytes, after which it is rotated.
    pub file_bytes: u64,
    /// Number of files to keep, including the current one: at least 1.
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

/// Exit status of a container's init process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal number, if it was killed by a signal.
    pub signal: Option<i32>,
    /// Whether the OOM killer killed a process of its cgroup.
    pub oom_killed: bool,
    /// Most memory that its cgroup has used, in bytes, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// Time of the exit in milliseconds since the Unix epoch.
    pub at_ms: u64,
}
