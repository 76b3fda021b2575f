//! What a creator notes of its network, so that the next one can clear it away if this one is killed.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Error, cgroups, process::Process};

const FILE: &str = "network.json";

/// Everything that could outlive a creator that is killed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The switch's holder and the hosts' inits.
    pub(crate) processes: Vec<Process>,
    /// The creator's own cgroup in each hierarchy, below which the hosts' agents make theirs.
    pub(crate) cgroup_parents: Vec<PathBuf>,
    /// How the names of those cgroups begin.
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

    /// Ends what an earlier creator left running in this directory, and removes its cgroups.
    pub(crate) fn clear_leftovers(directory: &Path) -> Result<(), Error> {
        let path = directory.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("read", &path)(error)),
        };
        // Renames make half-written records impossible; what cannot be read is not ours, and tells nothing.
        if let Ok(record) = serde_json::from_str::<Self>(&text) {
            record.clear()?;
        }
        fs::remove_file(&path).map_err(Error::file("remove", &path))
    }

    /// Hosts first, the switch last; then the cgroups, which are empty by now.
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
