//! What the agent keeps on disk, so that its successor can go on:
//!
//! - `<data_dir>/lock`: held by the running agent,
//! - `<data_dir>/desired.json`: the last desired set,
//! - `<data_dir>/apis.json`: what processes are kept from, as the controller said last,
//! - `<data_dir>/tls/`: the agent's key and certificate, see [`crate::tls`],
//! - `<data_dir>/processes/<id>/process.json`: [`Record`] of a process,
//! - `<data_dir>/processes/<id>/home/`: the container's home directory, which belongs to the runtime,
//! - `<data_dir>/processes/<id>/etc/`: its hosts, hostname and resolv.conf,
//! - `<data_dir>/images/`, `<data_dir>/layers/`: blobs and unpacked layers.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::SocketAddrV4,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, Mode};
use serde::{Deserialize, Serialize};
use tucano_api::{
    agent::{DesiredProcess, DesiredSet, Exit},
    ids::ProcessId,
    units::Timestamp,
};

use super::network::Lease;
use crate::files::{Durability, remove_if_there, write_atomically};

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
        /// What was to be done.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file in it cannot be understood.
    #[error("cannot understand {path}: {source}; it is not used")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What is to be known of a process after the agent was killed at any moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it was made from.
    pub process: DesiredProcess,
    /// Its address, port and user ids, once it has them.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// When it was last started.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// How often in a row it has ended.
    #[serde(default)]
    pub crashes: u32,
    /// How it last ended.
    #[serde(default)]
    pub last_exit: Option<Exit>,
    /// The signal that its image wants to be stopped by.
    #[serde(default)]
    pub stop_signal: Option<i32>,
    /// Whether its probe answered last time: an agent that takes it over does not report it as starting.
    #[serde(default)]
    pub healthy: bool,
}

impl Record {
    /// Of a process of which nothing exists yet.
    pub fn new(process: DesiredProcess) -> Self {
        Self {
            process,
            lease: None,
            started_at: None,
            restarts: 0,
            crashes: 0,
            last_exit: None,
            stop_signal: None,
            healthy: false,
        }
    }
}

/// The data directory, and the lock on it.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates it if it is not there, readable by its owner only, and locks it against other agents.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let processes = root.join("processes");
        fs::create_dir_all(&processes).map_err(|source| io_error("create", &processes, source))?;
        let lock = root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(|source| io_error("create", &lock, source))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Locked(root.to_owned())),
            Err(errno) => return Err(io_error("lock", &lock, errno.into())),
        }
        // Others on the node read neither the services' environment nor their output. Directories stay searchable:
        // a container's own root, in a user namespace, must be able to walk to its layers.
        rustix::fs::chmod(root, Mode::from_raw_mode(0o711))
            .map_err(|errno| io_error("protect", root, errno.into()))?;
        rustix::fs::chmod(&processes, Mode::from_raw_mode(0o711))
            .map_err(|errno| io_error("protect", &processes, errno.into()))?;
        Ok(Self {
            root: root.to_owned(),
            _lock: file,
        })
    }

    /// Where the store of blobs is.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Where the unpacked layers are.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// Everything of one process.
    pub fn process(&self, id: &ProcessId) -> ProcessDir {
        ProcessDir(self.root.join("processes").join(id.as_str()))
    }

    /// Every entry of `processes/`: its id, or its path where the name is none.
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

    /// The last desired set that was accepted.
    pub fn desired(&self) -> Result<Option<DesiredSet>, Error> {
        read_json(&self.root.join("desired.json"))
    }

    /// What processes are kept from.
    pub fn apis(&self) -> Result<BTreeSet<SocketAddrV4>, Error> {
        let kept = read_json(&self.root.join("apis.json"))?;
        Ok(kept.unwrap_or_default())
    }

    /// Keeps that.
    pub fn keep_apis(&self, apis: &BTreeSet<SocketAddrV4>) -> Result<(), Error> {
        write_json(&self.root.join("apis.json"), apis, Durability::Synced)
    }

    /// Keeps a desired set: on disk when this returns.
    pub fn keep_desired(&self, set: &DesiredSet) -> Result<(), Error> {
        write_json(&self.root.join("desired.json"), set, Durability::Synced)
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

    /// Its hosts, hostname and resolv.conf.
    pub fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    /// What was kept of it, if anything.
    pub fn record(&self) -> Result<Option<Record>, Error> {
        read_json(&self.0.join("process.json"))
    }

    /// Keeps the record: it survives the agent, not the loss of power, after which nothing of what it tells of runs.
    pub fn keep(&self, record: &Record) -> Result<(), Error> {
        fs::create_dir_all(&self.0).map_err(|source| io_error("create", &self.0, source))?;
        rustix::fs::chmod(&self.0, Mode::from_raw_mode(0o711))
            .map_err(|errno| io_error("protect", &self.0, errno.into()))?;
        write_json(&self.0.join("process.json"), record, Durability::Cached)
    }

    /// Removes everything of it.
    pub fn remove(&self) -> Result<(), Error> {
        remove_if_there(&self.0).map_err(|source| io_error("remove", &self.0, source))
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
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
mod tests {
    use tucano_api::{
        ids::{Digest, Generation, Revision},
        settings::parse,
    };

    use super::*;

    fn process() -> DesiredProcess {
        DesiredProcess {
            id: "a-1".parse().unwrap(),
            revision: Revision(1),
            image: Digest::sha256(&"0".repeat(64)).unwrap(),
            config: parse("a", "name = \"a\"\nconcurrency = 1\nport = 80").unwrap(),
        }
    }

    #[test]
    fn a_second_agent_is_refused_and_a_successor_is_not() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(root.path()).unwrap();
        let refused = DataDir::open(root.path()).unwrap_err().to_string();
        assert!(refused.contains("another agent already runs"), "{refused}");
        drop(first);
        DataDir::open(root.path()).unwrap();
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path()).unwrap();
        assert!(data.desired().unwrap().is_none());
        let set = DesiredSet {
            node: "w1".parse().unwrap(),
            generation: Generation(4),
            processes: vec![process()],
        };
        data.keep_desired(&set).unwrap();
        assert_eq!(data.desired().unwrap().unwrap(), set);

        let record = Record {
            restarts: 3,
            ..Record::new(process())
        };
        let directory = data.process(&process().id);
        directory.keep(&record).unwrap();
        assert_eq!(directory.record().unwrap().unwrap(), record);
        assert_eq!(data.processes().unwrap(), [Ok(process().id)]);
        directory.remove().unwrap();
        assert!(data.processes().unwrap().is_empty());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path()).unwrap();
        fs::write(root.path().join("desired.json"), "{").unwrap();
        let message = data.desired().unwrap_err().to_string();
        assert!(message.contains("desired.json"), "{message}");
    }

    #[test]
    fn a_name_that_is_no_process_is_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path()).unwrap();
        let stray = root.path().join("processes/.stray");
        fs::create_dir(&stray).unwrap();
        assert_eq!(data.processes().unwrap(), [Err(stray)]);
    }
}
