//! State directories of containers, one each below the root directory (`--root`).

use std::{
    collections::HashMap,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{ContainerState, Spec, State};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::{
    cgroup::Cgroup,
    state_dir::{self, ProcessId, StateDir},
    systemd::Scope,
};

/// Maximum length of an id: that of a file name.
const ID_LIMIT_BYTES: usize = 255;

/// File with the [`Record`].
const STATE: &str = "state.json";

/// File with the init process. Separate from the record, which is large and known earlier.
const PROCESS: &str = "process.json";

/// The root directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// `state.json`: the record of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    /// The configuration at the time of creation.
    pub(crate) spec: Spec,
    /// Creation time, RFC 3339.
    pub(crate) created: String,
    /// Boot id; pids are only meaningful within one boot.
    pub(crate) boot_id: String,
    /// Init process; absent during creation. Stored in [`PROCESS`]; older versions stored it here.
    #[serde(default, skip_serializing)]
    pub(crate) container: Option<ProcessId>,
    pub(crate) cgroup: Cgroup,
    /// The systemd scope of the cgroup, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<Scope>,
}

/// A container and its state directory.
#[derive(Debug)]
pub struct Container {
    pub(crate) directory: PathBuf,
    pub(crate) record: Record,
}

/// Status of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Being created, or creation was interrupted.
    Creating,
    /// Waiting for `start`.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Exited.
    Stopped,
}

impl Store {
    /// The store in a root directory, which is created with the first container.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Finds a container by its id.
    pub fn find(&self, id: &str) -> Result<Container, Error> {
        let directory = self.directory(id)?;
        let missing = || Error::Missing(id.to_owned());
        let state_dir = StateDir(&directory);
        let mut record: Record = state_dir.read(STATE)?.ok_or_else(missing)?;
        record.container = state_dir.read(PROCESS)?.or(record.container);
        Ok(Container { directory, record })
    }

    /// All containers, sorted by id. Containers that are being created or deleted are skipped.
    pub fn list(&self) -> Result<Vec<Container>, Error> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|source| self.failed(source))?,
        };
        let mut names: Vec<_> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names
            .iter()
            .filter_map(|name| self.find(name).ok())
            .collect())
    }

    /// Creates the state directory of a new container. Fails if it exists.
    pub(crate) fn reserve(&self, id: &str) -> Result<PathBuf, Error> {
        let directory = self.directory(id)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(|source| self.failed(source))?;
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => Ok(directory),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Error::Exists(id.to_owned()))
            }
            Err(source) => Err(Error::Store {
                path: directory,
                source,
            }),
        }
    }

    /// Removes the state directory of a creation that was interrupted before there was a record.
    pub(crate) fn remove_reserved(&self, id: &str) -> Result<(), Error> {
        let path = self.directory(id)?;
        match fs::remove_dir(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::Store {
                path,
                source: error,
            }),
            _ => Ok(()),
        }
    }

    fn directory(&self, id: &str) -> Result<PathBuf, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        let good = !id.is_empty() && id.len() <= ID_LIMIT_BYTES && id.bytes().all(plain);
        if !good || id == "." || id == ".." {
            return Err(Error::BadId(id.to_owned()));
        }
        Ok(self.root.join(id))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Store {
            path: self.root.clone(),
            source,
        }
    }
}

impl Container {
    /// The current status.
    pub fn status(&self) -> Status {
        let Some(container) = self.record.container else {
            return Status::Creating;
        };
        let same_boot = state_dir::boot_id().is_ok_and(|boot| boot == self.record.boot_id);
        let alive = same_boot && matches!(container.open(), Ok(Some(_)));
        match alive {
            false => Status::Stopped,
            true if crate::listener::is_waiting(&self.directory) => Status::Created,
            true if self.record.cgroup.is_frozen() => Status::Paused,
            true => Status::Running,
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Pid of its init process; 0 if it has exited.
    pub fn pid(&self, status: Status) -> i32 {
        let pid = self.record.container.map_or(0, |process| process.pid);
        if status == Status::Stopped { 0 } else { pid }
    }

    /// Its bundle.
    pub fn bundle(&self) -> &Path {
        &self.record.bundle
    }

    /// The specification version of its configuration.
    pub fn version(&self) -> &str {
        self.record.spec.version()
    }

    /// Annotations of its configuration.
    pub fn annotations(&self) -> Option<&HashMap<String, String>> {
        self.record.spec.annotations().as_ref()
    }

    /// Creation time, RFC 3339.
    pub fn created(&self) -> &str {
        &self.record.created
    }

    /// Its state in the specification's terms.
    pub(crate) fn state(&self, status: ContainerState) -> State {
        let mut state = State::default();
        state
            .set_version(self.record.spec.version().clone())
            .set_id(self.record.id.clone())
            .set_status(status)
            .set_pid(self.record.container.map(|process| process.pid))
            .set_bundle(self.record.bundle.clone())
            .set_annotations(self.record.spec.annotations().clone());
        state
    }

    pub(crate) fn write(&self) -> Result<(), Error> {
        Ok(StateDir(&self.directory).write(STATE, &self.record)?)
    }

    /// Prepares the record of the init process, which takes effect when it is committed.
    pub(crate) fn prepare_process(&self) -> Result<state_dir::Prepared, Error> {
        Ok(StateDir(&self.directory).prepare(PROCESS, &self.record.container)?)
    }

    /// Kills the processes of its cgroup and removes the cgroup.
    pub(crate) fn destroy_cgroup(&self) -> Result<(), Error> {
        self.record.cgroup.destroy()?;
        if let Some(scope) = &self.record.scope {
            scope.stop()?;
            self.record.cgroup.remove_scope();
        }
        Ok(())
    }

    pub(crate) fn remove(&self) -> Result<(), Error> {
        // Usually there are no other files.
        for name in [STATE, PROCESS] {
            drop(fs::remove_file(self.directory.join(name)));
        }
        let removed = fs::remove_dir(&self.directory);
        match removed.or_else(|_| fs::remove_dir_all(&self.directory)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::Store {
                path: self.directory.clone(),
                source: error,
            }),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_no_plain_names_are_refused() {
        let store = Store::at("/nowhere".into());
        let long = "x".repeat(256);
        for bad in ["", ".", "..", "a/b", "../x", "a b", "ü", &long] {
            assert!(matches!(store.find(bad), Err(Error::BadId(_))), "{bad}");
        }
        assert!(matches!(store.find("a_1+2-3.4"), Err(Error::Missing(_))));
    }

    #[test]
    fn an_id_is_reserved_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::at(directory.path().join("made/when/needed"));
        assert!(store.list().unwrap().is_empty());
        store.reserve("box").unwrap();
        assert!(matches!(store.reserve("box"), Err(Error::Exists(_))));
        // Without a record it is not a container yet.
        assert!(store.list().unwrap().is_empty());
    }
}
