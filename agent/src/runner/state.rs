//! The agent's files, by which the next agent continues:
//!
//! - `<data_dir>/lock`: locked by the running agent,
//! - `<data_dir>/desired.json`: the last desired set,
//! - `<data_dir>/apis.json`: addresses of APIs that processes must not reach, from the controller,
//! - `<data_dir>/machines.json`: addresses of the cluster's machines, whose connections to node ports are forwarded,
//! - `<data_dir>/names.json`: the services that processes here need, from the controller,
//! - `<data_dir>/tls/`: the agent's key and certificate, see [`crate::tls`],
//! - `<data_dir>/processes/<id>/process.json`: [`Record`] of a process,
//! - `<data_dir>/processes/<id>/home/`: the container's home directory, which belongs to the runtime,
//! - `<data_dir>/processes/<id>/frozen`: exists while it is frozen for a backup,
//! - `<data_dir>/processes/<id>/etc/`: its hosts, hostname and resolv.conf,
//! - `<data_dir>/logs/<id>/`: output of a removed process,
//! - `<data_dir>/volumes.json`: the volumes that are or were here; `<data_dir>/volumes/`: the volumes, unless they are elsewhere,
//! - `<data_dir>/images/`, `<data_dir>/layers/`: blobs and unpacked layers.
//!
//! Files have mode 0600, since environments of services may be secrets. Directories have mode 0700, or 0711 where a container's
//! root, in a user namespace, needs to reach its layers or its files.
//!
//! A file that cannot be read never stops the agent: it is moved to `<name>.damaged`, and the agent continues as if it were missing.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use tucano_api::{
    agent::{DesiredProcess, DesiredSet, Exit},
    ids::ProcessId,
    names::{Names, ServiceSubnet},
    units::Timestamp,
};

use super::network::{Cluster, FurtherPorts, Lease};
use crate::files::{
    Durability, protect, protect_file, read_bounded, remove_if_exists, set_aside, sync_directory,
    write_atomically,
};

/// Largest stored desired set: several times the largest accepted body.
const MAX_DESIRED_BYTES: u64 = 1 << 30;
/// Largest of the other files: a process's configuration is far smaller.
const MAX_RECORD_BYTES: u64 = 16 << 20;
/// Mode of directories on the path to a container's files.
const SEARCHABLE: u32 = 0o711;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent uses it.
    #[error(
        "another agent already runs with the data directory {0}: stop it, or give this one another `data_dir`"
    )]
    Locked(PathBuf),
    /// A file or directory in it cannot be read or written.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file in it is damaged.
    #[error("ignoring {path}, which cannot be parsed: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// What the next agent must know of a process, even if this one is killed at any moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The desired process that it was made from.
    pub process: DesiredProcess,
    /// Its address, port and user ids, once it has them.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// Its ports beyond the one of the lease.
    #[serde(default, skip_serializing_if = "FurtherPorts::is_empty")]
    pub ports: FurtherPorts,
    /// When it was last started.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// Number of restarts.
    #[serde(default)]
    pub restarts: u32,
    /// Consecutive ends and failed starts.
    #[serde(default)]
    pub crashes: u32,
    /// Its last exit.
    #[serde(default)]
    pub last_exit: Option<Exit>,
    /// The image's stop signal.
    #[serde(default)]
    pub stop_signal: Option<i32>,
    /// Whether its last probe succeeded: an adopted healthy process is not reported as starting.
    #[serde(default)]
    pub healthy: bool,
    /// Of a run: whether its start was begun. It is not started again, whatever is left of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
}

impl Record {
    /// The record of a process that was never started.
    pub fn new(process: DesiredProcess) -> Self {
        Self {
            process,
            lease: None,
            ports: FurtherPorts::new(),
            started_at: None,
            restarts: 0,
            crashes: 0,
            last_exit: None,
            stop_signal: None,
            healthy: false,
            begun: false,
        }
    }
}

/// The locked data directory.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

/// `machines.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Machines {
    #[serde(default)]
    workers: BTreeSet<Ipv4Addr>,
    #[serde(default)]
    controllers: VecDeque<Ipv4Addr>,
    #[serde(default)]
    services: Option<ServiceSubnet>,
}

impl DataDir {
    /// Creates the directory if it is missing, locks it against other agents, and corrects the modes of its files.
    ///
    /// # Errors
    /// Another agent has the lock, or a file operation failed.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let processes = root.join("processes");
        let images = root.join("images");
        for directory in [&processes, &images] {
            fs::create_dir_all(directory)
                .map_err(|source| io_error("create", directory, source))?;
        }
        let lock = lock(root)?;
        for (directory, mode) in [
            (root, SEARCHABLE),
            (&processes, SEARCHABLE),
            (&images, 0o700),
        ] {
            protect(directory, mode).map_err(|source| io_error("protect", directory, source))?;
        }
        let data = Self {
            root: root.to_owned(),
            _lock: lock,
        };
        data.protect_files();
        Ok(data)
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The record of volumes, see [`crate::volumes`].
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes.json")
    }

    /// Directory of the blob store.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Directory of the unpacked layers.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The directory of one process.
    pub fn process(&self, id: &ProcessId) -> ProcessDir {
        ProcessDir(self.root.join("processes").join(id.as_str()))
    }

    /// Every entry of `processes/`: its id, or its path where the name is not an id.
    pub fn processes(&self) -> Result<Vec<Result<ProcessId, PathBuf>>, Error> {
        let directory = self.root.join("processes");
        let failed = |source| io_error("list", &directory, source);
        let entries = fs::read_dir(&directory).map_err(failed)?;
        entries
            .map(|entry| {
                let entry = entry.map_err(failed)?;
                let id = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok());
                Ok(id.ok_or_else(|| entry.path()))
            })
            .collect()
    }

    /// The last desired set that was accepted, if it can be read; a damaged file is set aside and described in `notes`.
    pub fn desired(&self, notes: &mut Vec<String>) -> Option<DesiredSet> {
        let path = self.root.join("desired.json");
        usable(&path, read_json(&path, MAX_DESIRED_BYTES), notes)
    }

    /// What is known of the cluster's machines; damaged files are set aside and described in `notes`.
    pub fn cluster(&self, notes: &mut Vec<String>) -> Cluster {
        let path = self.root.join("apis.json");
        let apis = usable(&path, read_json(&path, MAX_RECORD_BYTES), notes);
        let path = self.root.join("machines.json");
        let machines = usable(&path, read_json::<Machines>(&path, MAX_RECORD_BYTES), notes);
        let machines = machines.unwrap_or_default();
        Cluster {
            apis: apis.unwrap_or_default(),
            workers: machines.workers,
            controllers: machines.controllers,
            services: machines.services,
        }
    }

    /// Stores what is known of the cluster's machines durably.
    ///
    /// # Errors
    /// A file cannot be written; the old one stays.
    pub fn store_cluster(&self, cluster: &Cluster) -> Result<(), Error> {
        let apis: &BTreeSet<SocketAddrV4> = &cluster.apis;
        write_json(&self.root.join("apis.json"), apis, Durability::Synced)?;
        let machines = Machines {
            workers: cluster.workers.clone(),
            controllers: cluster.controllers.clone(),
            services: cluster.services,
        };
        let path = self.root.join("machines.json");
        write_json(&path, &machines, Durability::Synced)
    }

    /// What an earlier agent knew of services; a damaged file is set aside and described in `notes`.
    pub fn names(&self, notes: &mut Vec<String>) -> Names {
        let path = self.root.join("names.json");
        let names = usable(&path, read_json(&path, MAX_DESIRED_BYTES), notes);
        names.unwrap_or_default()
    }

    /// Stores what is known of services, for the next agent. Like the processes, it need not survive a power failure.
    ///
    /// # Errors
    /// The file cannot be written; the old one stays.
    pub fn store_names(&self, names: &Names) -> Result<(), Error> {
        write_json(&self.root.join("names.json"), names, Durability::Cached)
    }

    /// Stores a desired set durably.
    ///
    /// # Errors
    /// The file cannot be written; the old one stays.
    pub fn store_desired(&self, set: &DesiredSet) -> Result<(), Error> {
        write_json(&self.root.join("desired.json"), set, Durability::Synced)
    }

    /// Corrects the modes of files that earlier agents and runtimes wrote. Best effort: a failure is logged.
    fn protect_files(&self) {
        let own = ["desired.json", "apis.json", "machines.json", "names.json"]
            .map(|name| self.root.join(name));
        let processes = fs::read_dir(self.root.join("processes"))
            .into_iter()
            .flatten();
        let processes = processes.flatten().map(|entry| ProcessDir(entry.path()));
        let files = own
            .into_iter()
            .chain(processes.flat_map(|process| process.protect()));
        for file in files {
            if let Err(error) = protect_file(&file) {
                tracing::warn!(path = %file.display(), %error, "cannot protect a file");
            }
        }
    }
}

fn lock(root: &Path) -> Result<File, Error> {
    let lock = root.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock)
        .map_err(|source| io_error("create", &lock, source))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked(root.to_owned())),
        Err(errno) => Err(io_error("lock", &lock, errno.into())),
    }
}

/// The directory of one process.
#[derive(Debug, Clone)]
pub struct ProcessDir(PathBuf);

impl ProcessDir {
    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The container's home directory.
    pub fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    /// A file that exists while the agent has frozen it.
    pub fn frozen(&self) -> PathBuf {
        self.0.join("frozen")
    }

    /// Its hosts, hostname and resolv.conf.
    pub fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    /// The configuration files of its service, by their numbers.
    pub fn files(&self) -> PathBuf {
        self.0.join("files")
    }

    /// Its record, if it has one.
    ///
    /// # Errors
    /// The record is damaged.
    pub fn record(&self) -> Result<Option<Record>, Error> {
        read_json(&self.0.join("process.json"), MAX_RECORD_BYTES)
    }

    /// Stores the record. It survives the agent but not a power failure, after which the process does not run either. That of a run
    /// survives that too: the process must not be started again.
    ///
    /// # Errors
    /// The file cannot be written; the old one stays.
    pub fn store(&self, record: &Record) -> Result<(), Error> {
        for directory in [&self.0, &self.home()] {
            fs::create_dir_all(directory)
                .and_then(|()| protect(directory, SEARCHABLE))
                .map_err(|source| io_error("create", directory, source))?;
        }
        let durability = match record.begun {
            true => Durability::Synced,
            false => Durability::Cached,
        };
        write_json(&self.0.join("process.json"), record, durability)?;
        if let Some(parent) = self.0.parent().filter(|_| record.begun) {
            sync_directory(parent).map_err(|source| io_error("sync", parent, source))?;
        }
        Ok(())
    }

    /// Removes the directory.
    ///
    /// # Errors
    /// Something of it cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        remove_if_exists(&self.0).map_err(|source| io_error("remove", &self.0, source))
    }

    /// Corrects the modes of its directories; its files with secrets.
    fn protect(&self) -> Vec<PathBuf> {
        let home = self.home();
        for directory in [&self.0, &home] {
            if let Err(error) = protect(directory, SEARCHABLE)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %directory.display(), %error, "cannot protect a directory");
            }
        }
        let entries = fs::read_dir(home).into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        let record = [self.0.join("process.json")].into_iter();
        record.chain(files.map(|file| file.path())).collect()
    }
}

/// The content of a file, unless it is damaged: then it is set aside.
fn usable<T>(path: &Path, read: Result<Option<T>, Error>, notes: &mut Vec<String>) -> Option<T> {
    let error = match read {
        Ok(content) => return content,
        Err(error) => error,
    };
    tracing::warn!(%error);
    notes.push(error.to_string());
    set_aside(path);
    None
}

fn read_json<T: serde::de::DeserializeOwned>(
    path: &Path,
    limit_bytes: u64,
) -> Result<Option<T>, Error> {
    let text = match read_bounded(path, limit_bytes) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", path, source)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| Error::Malformed {
            path: path.to_owned(),
            source,
        })
}

fn write_json(path: &Path, value: &impl Serialize, durability: Durability) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(value).map_err(|source| Error::Malformed {
        path: path.to_owned(),
        source,
    })?;
    write_atomically(path, &text, durability).map_err(|source| io_error("write", path, source))
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
