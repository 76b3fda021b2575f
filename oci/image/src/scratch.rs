//! Directories for unfinished work: they vanish when they are dropped, and when the program that
//! made them was killed, the next one finds and removes them.
//!
//! A lock tells live ones from abandoned ones, so two programs may use one place at a time: who works in a
//! scratch directory holds `flock` on it; and making one and sweeping are kept apart by a lock on the place.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::{erofs::mount, error::Error};

const PREFIX: &str = ".tmp-";
/// A directory within one on which something may be mounted.
pub(crate) const MOUNT: &str = "mount";

/// A directory of mode 0700 that vanishes unless it is kept.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: TempDir,
    /// Held for as long as the directory is in use.
    lock: File,
}

impl Scratch {
    /// Makes one in `place`.
    pub(crate) fn create(place: &Path) -> Result<Self, Error> {
        let make = || {
            let guard = File::open(place)?;
            flock(&guard, FlockOperation::LockShared)?;
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
            let lock = File::open(directory.path())?;
            flock(&lock, FlockOperation::LockExclusive)?;
            Ok(Self { directory, lock })
        };
        make().map_err(|source: io::Error| Error::io("make a directory in", place, source))
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The open directory.
    pub(crate) fn handle(&self) -> &File {
        &self.lock
    }

    /// Gives the directory its final name, whole and at once. Whether it is the first of that name: if not,
    /// this one vanishes.
    pub(crate) fn keep_as(self, path: &Path) -> Result<bool, Error> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let renamed = renameat_with(CWD, self.path(), CWD, path, RenameFlags::NOREPLACE);
        match renamed {
            Ok(()) => {
                // It is not where the guard would look for it any more.
                let _former_path: PathBuf = self.directory.keep();
                Ok(true)
            }
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(error) => Err(Error::io("make", path, error)),
        }
    }
}

/// Removes what earlier runs left unfinished in `place`, and nothing that is in use.
pub(crate) fn sweep(place: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::io("clean up", place, source);
    let guard = File::open(place).map_err(failed)?;
    flock(&guard, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    for entry in fs::read_dir(place).map_err(failed)? {
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

/// Takes a directory out of sight at once and removes it then, so that nobody sees half of it.
pub(crate) fn discard(place: &Path, directory: &Path) -> Result<(), Error> {
    let grave = Scratch::create(place)?;
    fs::rename(directory, grave.path().join("discarded"))
        .map_err(|source| Error::io("remove", directory, source))?;
    let Scratch {
        directory: grave,
        lock: _held,
    } = grave;
    grave
        .close()
        .map_err(|source| Error::io("remove", directory, source))
}

fn remove_unless_locked(directory: &Path) -> io::Result<()> {
    let lock = match File::open(directory) {
        Ok(lock) => lock,
        // Its owner finished it meanwhile.
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
mod tests {
    use super::*;

    fn count(place: &Path) -> usize {
        fs::read_dir(place).unwrap().count()
    }

    #[test]
    fn dropped_it_vanishes_and_kept_it_stays() {
        let place = tempfile::tempdir().unwrap();
        drop(Scratch::create(place.path()).unwrap());
        assert_eq!(count(place.path()), 0);
        let name = place.path().join("name");
        assert!(
            Scratch::create(place.path())
                .unwrap()
                .keep_as(&name)
                .unwrap()
        );
        assert!(
            !Scratch::create(place.path())
                .unwrap()
                .keep_as(&name)
                .unwrap()
        );
        assert!(name.is_dir());
        assert_eq!(count(place.path()), 1);
        discard(place.path(), &name).unwrap();
        assert_eq!(count(place.path()), 0);
    }

    #[test]
    fn sweeping_takes_what_nobody_uses() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join(".tmp-abandoned/deep")).unwrap();
        fs::create_dir(place.path().join("finished")).unwrap();
        let live = Scratch::create(place.path()).unwrap();
        sweep(place.path()).unwrap();
        assert!(live.path().is_dir());
        assert!(!place.path().join(".tmp-abandoned").exists());
        assert_eq!(count(place.path()), 2);
    }
}
