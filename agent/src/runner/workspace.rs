//! The files and the cgroup of one process.

use std::path::{Path, PathBuf};

use tucano_api::ids::ProcessId;
use tucano_oci_runtime::cgroup::Cgroup;

use super::{
    container,
    execute::Error,
    network::Lease,
    resolver::ResolvConf,
    state::{ProcessDir, Record},
};
use crate::files::remove_if_exists;

/// What the runtime leaves in a home directory, except output.
const LEFTOVERS: [&str; 5] = [
    "launch.json",
    "supervisor.json",
    "exit.json",
    "upper",
    "work",
];

/// A process's directory and the path of its cgroup.
#[derive(Debug, Clone)]
pub struct Workspace {
    directory: ProcessDir,
    id: ProcessId,
    cgroup: String,
}

impl Workspace {
    /// Of a process whose cgroup is below `parent`, which is a path as in specifications.
    pub fn new(directory: ProcessDir, id: &ProcessId, parent: &str) -> Self {
        Self {
            directory,
            id: id.clone(),
            cgroup: format!("{parent}/{id}"),
        }
    }

    /// The container's home directory.
    pub fn home(&self) -> PathBuf {
        self.directory.home()
    }

    /// The mark of a frozen container.
    pub(super) fn frozen(&self) -> PathBuf {
        self.directory.frozen()
    }

    /// Writes the files of a process before its start; ids of the container are `ids_base` higher on the node. They are not synced: see decision 70.
    pub(super) fn prepare(
        &self,
        record: &Record,
        lease: Lease,
        ids_base: u32,
        resolv_conf: &ResolvConf,
    ) -> Result<(), Error> {
        self.clear_last_run()?;
        self.directory.store(record)?;
        let etc = self.directory.etc();
        let config = &record.process.config;
        let hostname = config.hostname.as_deref().unwrap_or(self.id.as_str());
        let resolv_conf = match config.dns.is_empty() {
            true => resolv_conf.text.clone(),
            false => ResolvConf::of_servers(&config.dns).text,
        };
        container::write_etc(&etc, hostname, lease.ip, &config.extra_hosts, &resolv_conf)
            .map_err(|source| file_error("write", &etc, source))?;
        let files = self.directory.files();
        container::write_files(&files, &record.process.config.file, ids_base)
            .map_err(|source| file_error("write", &files, source))
    }

    /// Removes what the container's previous run left, except its output.
    fn clear_last_run(&self) -> Result<(), Error> {
        let home = self.home();
        if !home.exists() {
            return Ok(());
        }
        self.destroy_cgroup()?;
        for name in LEFTOVERS {
            let path = home.join(name);
            remove_if_exists(&path).map_err(|source| file_error("remove", &path, source))?;
        }
        Ok(())
    }

    /// Kills the processes in the container's cgroup and removes it. Blocking.
    ///
    /// # Errors
    /// A process survives, or the cgroup cannot be removed.
    pub fn destroy_cgroup(&self) -> Result<(), Error> {
        let cgroup = match self.recorded_cgroup() {
            Some(cgroup) => cgroup,
            None => Cgroup::at(&self.cgroup)?,
        };
        Ok(cgroup.destroy()?)
    }

    /// The cgroup that the supervisor recorded; `None` if the record is missing, damaged, or of another container.
    pub(super) fn recorded_cgroup(&self) -> Option<Cgroup> {
        recorded_cgroup(&self.home(), self.id.as_str())
    }
}

/// The cgroup recorded in a home directory, if it is that of a container with this id.
pub(super) fn recorded_cgroup(home: &Path, id: &str) -> Option<Cgroup> {
    let cgroup = Cgroup::of(home).ok()??;
    let mut directories = cgroup.directories.iter();
    let is_own = directories.all(|(_, directory)| directory.ends_with(id));
    (is_own && !cgroup.directories.is_empty()).then_some(cgroup)
}

fn file_error(what: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
