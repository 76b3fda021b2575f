//! Single instance: a lock file that holds the balancer's process id.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Exit status if the lock is taken.
pub const EXIT_LOCKED: u8 = 3;

/// The lock, held until this is dropped or the program ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another balancer holds it.
    #[error("another balancer{holder} is running: it holds {path}", path = path.display())]
    Taken {
        /// The lock file.
        path: PathBuf,
        /// ` (process N)`, if the file contains an id.
        holder: String,
    },
    /// The file cannot be opened, locked or written.
    #[error("cannot lock {0}; check that its directory exists and is writable")]
    Unusable(PathBuf, #[source] io::Error),
}

impl Lock {
    /// Takes the lock and writes this process's id into the file.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let unusable = |error| LockError::Unusable(path.to_owned(), error);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Taken {
                    path: path.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        file.set_len(0).map_err(unusable)?;
        writeln!(file, "{}", std::process::id()).map_err(unusable)?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(20).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!(" (process {})", text.trim()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_names_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("balancer.lock");
        let first = Lock::take(&path).unwrap();
        let error = Lock::take(&path).unwrap_err().to_string();
        let holder = format!("(process {})", std::process::id());
        assert!(error.contains(&holder), "{error}");
        drop(first);
        Lock::take(&path).unwrap();
    }

    #[test]
    fn an_unusable_path_is_named() {
        let error = Lock::take(Path::new("/nowhere/balancer.lock")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/balancer.lock"));
    }
}
