//! Directories for unfinished work. They are removed when they are dropped; after a crash, the next start sweeps them.
//!
//! A `flock` on each scratch directory distinguishes those in use from abandoned ones, so several programs may share one
//! parent directory. A lock on the parent keeps creating and sweeping apart.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::{error::Error, mount};

const PREFIX: &str = ".tmp-";
/// A mount point within a scratch directory.
pub(crate) const MOUNT: &str = "mount";

/// A directory of mode 0700 that is removed on drop unless it is persisted.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: TempDir,
    /// Held while the directory is in use.
    lock: File,
}

impl Scratch {
    /// Creates one in `parent`.
    pub(crate) fn create(parent: &Path) -> Result<Self, Error> {
        let make = || {
            let guard = File::open(parent)?;
            flock(&guard, FlockOperation::LockShared)?;
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            let lock = File::open(directory.path())?;
            flock(&lock, FlockOperation::LockExclusive)?;
            Ok(Self { directory, lock })
        };
        make().map_err(|source: io::Error| Error::io("create a directory in", parent, source))
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The open directory.
    pub(crate) fn handle(&self) -> &File {
        &self.lock
    }

    /// Renames the directory to its final name atomically. Returns `false` and removes it if the name exists already.
    pub(crate) fn persist(self, path: &Path) -> Result<bool, Error> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let renamed = renameat_with(CWD, self.path(), CWD, path, RenameFlags::NOREPLACE);
        match renamed {
            Ok(()) => {
                // Its former path must not be removed on drop.
                let _former_path: PathBuf = self.directory.keep();
                Ok(true)
            }
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(error) => Err(Error::io("create", path, error)),
        }
    }
}

/// Removes abandoned scratch directories in `parent`.
pub(crate) fn sweep(parent: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::io("clean up", parent, source);
    let guard = File::open(parent).map_err(failed)?;
    flock(&guard, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    for entry in fs::read_dir(parent).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
        {
            remove_unless_locked(&entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Renames a directory away and then removes it, so that no reader sees a part of it.
pub(crate) fn discard(parent: &Path, directory: &Path) -> Result<(), Error> {
    let trash = Scratch::create(parent)?;
    fs::rename(directory, trash.path().join("discarded"))
        .map_err(|source| Error::io("remove", directory, source))?;
    let Scratch {
        directory: trash,
        lock: _held,
    } = trash;
    trash
        .close()
        .map_err(|source| Error::io("remove", directory, source))
}

fn remove_unless_locked(directory: &Path) -> io::Result<()> {
    let lock = match File::open(directory) {
        Ok(lock) => lock,
        // Its owner has persisted or removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    mount::unmount(&directory.join(MOUNT))?;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests;
