//! Output of removed processes, kept for a while in `<data_dir>/logs/<id>/`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tucano_api::{
    ids::{ProcessId, ServiceName},
    logs::KeptOutput,
    units::Timestamp,
};
use tucano_oci_runtime::output_index;

use crate::files::{protect, remove_if_exists};

/// Beginnings of the names of output files.
const OUTPUT: [&str; 3] = ["stdout.log", "stderr.log", output_index::NAME];

/// The directory of kept output, and its limits.
#[derive(Debug, Clone)]
pub struct Retained {
    root: PathBuf,
    age: Duration,
    bytes: u64,
}

impl Retained {
    /// Output is kept for `age` after its process's removal, at most `bytes` of all processes.
    pub fn new(root: PathBuf, age: Duration, bytes: u64) -> Self {
        Self { root, age, bytes }
    }

    /// The directory of all kept output.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The kept output of a process; the directory is missing if there is none.
    pub fn directory(&self, id: &ProcessId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// Moves the output from a home directory. The files stay open for followers.
    ///
    /// # Errors
    /// A file or directory cannot be moved.
    pub fn keep(&self, id: &ProcessId, home: &Path) -> io::Result<()> {
        let directory = self.directory(id);
        remove_if_exists(&directory)?;
        if self.age.is_zero() || self.bytes == 0 {
            return Ok(());
        }
        let output = output_files(home)?;
        if output.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&directory)?;
        protect(&self.root, 0o700)?;
        output
            .iter()
            .try_for_each(|name| fs::rename(home.join(name), directory.join(name)))
    }

    /// The processes of a service whose output is kept, oldest first.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn of_service(&self, name: &ServiceName) -> io::Result<Vec<KeptOutput>> {
        let all = self.newest_first()?.into_iter();
        let kept = all.filter_map(|(removed_at, _, directory)| {
            let id: ProcessId = directory.file_name()?.to_str()?.parse().ok()?;
            let removed_at = removed_at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            let removed_at = Timestamp(u64::try_from(removed_at.as_millis()).ok()?);
            (id.service_name() == name.as_str()).then_some(KeptOutput { id, removed_at })
        });
        let mut kept: Vec<_> = kept.collect();
        kept.sort_by_key(|output| output.id.number());
        Ok(kept)
    }

    /// Removes output that is older than the limit, then the oldest output beyond the limit of bytes.
    ///
    /// # Errors
    /// The directory cannot be listed, or output cannot be removed.
    pub fn prune(&self, now: SystemTime) -> io::Result<()> {
        let mut kept = 0_u64;
        for (removed_at, bytes, directory) in self.newest_first()? {
            let age = now.duration_since(removed_at).unwrap_or_default();
            kept = kept.saturating_add(bytes);
            if age > self.age || kept > self.bytes {
                remove_if_exists(&directory)?;
            }
        }
        Ok(())
    }

    fn newest_first(&self) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut all = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            let removed_at = entry.metadata().and_then(|metadata| metadata.modified());
            let files = fs::read_dir(&path).into_iter().flatten().flatten();
            let bytes = files.map(|file| file.metadata().map_or(0, |file| file.len()));
            all.push((
                removed_at.unwrap_or(SystemTime::UNIX_EPOCH),
                bytes.sum(),
                path,
            ));
        }
        all.sort_by_key(|entry| std::cmp::Reverse(entry.0));
        Ok(all)
    }
}

/// Names of the regular output files in a home directory.
fn output_files(home: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let entries = match fs::read_dir(home) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let files = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_output = OUTPUT.iter().any(|output| name.starts_with(output));
        is_output && entry.file_type().is_ok_and(|kind| kind.is_file())
    });
    Ok(files.map(|entry| entry.file_name()).collect())
}

#[cfg(test)]
mod tests;
