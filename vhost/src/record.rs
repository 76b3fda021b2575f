//! The record of a network, by which the next creator removes what a killed one left behind.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Error, cgroups, process::Process};

const FILE: &str = "network.json";

/// Processes and cgroups that can outlive a killed creator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The switch's holder and the hosts' inits.
    pub(crate) processes: Vec<Process>,
    /// The creator's cgroup in each hierarchy, the parent of those of the hosts' agents.
    pub(crate) cgroup_parents: Vec<PathBuf>,
    /// Prefix of the names of those cgroups.
    pub(crate) cgroup_prefix: String,
}

impl Record {
    pub(crate) fn save(&self, directory: &Path) -> Result<(), Error> {
        let path = directory.join(FILE);
        let new = directory.join(format!("{FILE}.new"));
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::File {
            action: "write",
            path: path.clone(),
            source: error.into(),
        })?;
        fs::write(&new, text).map_err(Error::file("write", &new))?;
        fs::rename(&new, &path).map_err(Error::file("write", &path))
    }

    /// Kills the processes that an earlier creator left in this directory, and removes their cgroups.
    pub(crate) fn clear_leftovers(directory: &Path) -> Result<(), Error> {
        let path = directory.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("read", &path)(error)),
        };
        // Records are replaced atomically, so one that cannot be parsed is not ours and is ignored.
        if let Ok(record) = serde_json::from_str::<Self>(&text) {
            record.clear()?;
        }
        fs::remove_file(&path).map_err(Error::file("remove", &path))
    }

    /// Kills the hosts, then the switch, then removes the cgroups, which are empty by now.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        for process in self.processes.iter().rev() {
            process.kill()?;
        }
        if self.cgroup_prefix.is_empty() {
            return Ok(());
        }
        cgroups::remove_below(&self.cgroup_parents, &self.cgroup_prefix)
    }
}
