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
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn id(text: &str) -> ProcessId {
        text.parse().unwrap()
    }

    fn keep(retained: &Retained, name: &str, output: &str) {
        let home = tempfile::tempdir().unwrap();
        let names = ["stdout.log", "stdout.log.1", "stderr.log", "output.idx"];
        for file in names.into_iter().chain(["launch.json"]) {
            fs::write(home.path().join(file), output).unwrap();
        }
        retained.keep(&id(name), home.path()).unwrap();
        assert_eq!(
            fs::read_dir(home.path()).unwrap().count(),
            1,
            "only output is moved"
        );
        let directory = fs::File::open(retained.directory(&id(name))).unwrap();
        assert_eq!(
            fs::read_dir(retained.directory(&id(name))).unwrap().count(),
            names.len()
        );
        drop(directory);
    }

    fn removed(retained: &Retained, name: &str, ago: Duration) {
        let directory = fs::File::open(retained.directory(&id(name))).unwrap();
        directory.set_modified(SystemTime::now() - ago).unwrap();
    }

    #[test]
    fn output_of_removed_processes_is_kept_for_its_time() {
        let root = tempfile::tempdir().unwrap();
        let retained = Retained::new(root.path().join("logs"), HOUR, 1 << 20);
        retained.prune(SystemTime::now()).unwrap();
        keep(&retained, "a-1", "x");
        keep(&retained, "a-2", "x");
        removed(&retained, "a-1", HOUR * 2);
        retained.prune(SystemTime::now()).unwrap();
        assert!(!retained.directory(&id("a-1")).exists());
        assert!(retained.directory(&id("a-2")).exists());
    }

    #[test]
    fn the_oldest_output_is_removed_beyond_the_limit_of_bytes() {
        let root = tempfile::tempdir().unwrap();
        let retained = Retained::new(root.path().join("logs"), HOUR, 900);
        for (number, name) in ["a-1", "a-2", "a-3"].into_iter().enumerate() {
            keep(&retained, name, &"x".repeat(100));
            removed(
                &retained,
                name,
                HOUR / 2 - Duration::from_secs(number as u64),
            );
        }
        retained.prune(SystemTime::now()).unwrap();
        let kept = ["a-1", "a-2", "a-3"].map(|name| retained.directory(&id(name)).exists());
        assert_eq!(kept, [false, true, true]);
    }

    #[test]
    fn the_kept_output_of_a_service_is_found() {
        let root = tempfile::tempdir().unwrap();
        let retained = Retained::new(root.path().join("logs"), HOUR, 1 << 20);
        let name = |text: &str| text.parse().unwrap();
        assert_eq!(retained.of_service(&name("a")).unwrap(), []);
        for name in ["a-10", "a-9", "a-1-2", "b-3"] {
            keep(&retained, name, "x");
        }
        fs::create_dir(retained.root().join("lost+found")).unwrap();
        let found = |service| {
            let kept = retained.of_service(&name(service)).unwrap().into_iter();
            kept.map(|output| output.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("a"), ["a-9", "a-10"]);
        assert_eq!(found("a-1"), ["a-1-2"]);
        assert_eq!(found("c"), [""; 0]);
    }

    #[test]
    fn nothing_is_kept_without_time_or_space() {
        let root = tempfile::tempdir().unwrap();
        for (age, bytes) in [(Duration::ZERO, 700), (HOUR, 0)] {
            let home = tempfile::tempdir().unwrap();
            fs::write(home.path().join("stdout.log"), "x").unwrap();
            let retained = Retained::new(root.path().join("logs"), age, bytes);
            retained.keep(&id("a-1"), home.path()).unwrap();
            assert!(!retained.directory(&id("a-1")).exists());
        }
    }
}
