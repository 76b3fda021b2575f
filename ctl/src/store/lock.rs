//! One controller per data directory.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

/// Locks the data directory for this process; released when dropped and by any kind of process exit.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

/// Why the data directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another controller holds it.
    #[error(
        "the data directory {path} is in use by another tucano_ctld (pid {pid}): stop it, or set another data_dir"
    )]
    Held {
        /// The directory.
        path: String,
        /// The other process's id, as it recorded it.
        pid: String,
    },
    /// It cannot be created or locked for another reason.
    #[error("cannot use the data directory {path}: {source}")]
    Io {
        /// The directory.
        path: String,
        /// What the system says.
        source: io::Error,
    },
}

impl DataDirLock {
    /// Creates the directory if it is missing (for its owner only) and locks it.
    ///
    /// # Errors
    /// Which process holds it, or why it is not usable.
    pub fn take(data_dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            path: data_dir.display().to_string(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(failed)?;
        let path = data_dir.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).unwrap_or_default();
                return Err(LockError::Held {
                    path: data_dir.display().to_string(),
                    pid: pid.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // The pid is informational: a full disk must not prevent the start.
        let noted = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::warn!(%error, "cannot write the process id to the lock file");
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_once_and_released_when_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("a/b");
        let lock = DataDirLock::take(&data_dir).unwrap();
        let error = DataDirLock::take(&data_dir).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(lock);
        DataDirLock::take(&data_dir).unwrap();
    }

    #[test]
    fn an_unusable_directory_is_named() {
        let error = DataDirLock::take(Path::new("/proc/nope")).unwrap_err();
        assert!(matches!(error, LockError::Io { .. }), "{error}");
        assert!(error.to_string().contains("/proc/nope"));
    }
}
