//! `supervisor.json`: what a supervisor records about its container.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    cgroup::{Cgroup, Error},
    container::user::User,
    state_dir::{ProcessId, StateDir},
};

/// Content of `supervisor.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Boot id; pids are only meaningful within one boot.
    pub(crate) boot_id: String,
    pub(crate) supervisor: ProcessId,
    /// Absent until the program is about to be executed.
    pub(crate) container: Option<ProcessId>,
    pub(crate) cgroup: Cgroup,
    /// The user of the container's program.
    pub(crate) user: Option<User>,
}

impl Cgroup {
    /// The cgroup of the container with this state directory, as recorded by its supervisor.
    pub fn of(state_dir: &Path) -> Result<Option<Self>, Error> {
        let record = StateDir(state_dir).read::<Record>("supervisor.json")?;
        Ok(record.map(|record| record.cgroup))
    }
}
