//! Path resolution inside an untrusted root file system. The kernel resolves paths beneath the root (`openat2(2)`) and
//! never through magic links. Results are descriptors, so that a symbolic link cannot change between check and use.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// How often a lookup is repeated because something was renamed meanwhile.
const ATTEMPTS: usize = 16;

/// Maximum number of dangling links on the way to a file that is created.
const LINKS_LIMIT: usize = 40;

/// The root directory of a container's file system.
#[derive(Debug)]
pub(crate) struct Root(pub(crate) OwnedFd);

/// How symbolic links are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symlinks {
    /// Relative to the root.
    InRoot,
    /// Refused. For directories that only the runtime may populate (`/proc`, `/dev`, `/sys`).
    Refuse,
}

impl Root {
    /// Opens what is at `path`.
    pub(crate) fn open(&self, path: &Path, flags: OFlags, links: Symlinks) -> io::Result<OwnedFd> {
        open_below(&self.0, path, flags, links)
    }

    /// Opens the directory at `path`. Creates missing directories, where a dangling symbolic link leads too.
    pub(crate) fn directory(&self, path: &Path, links: Symlinks) -> io::Result<OwnedFd> {
        check_names(path)?;
        self.made(&Path::new("/").join(path), links, LINKS_LIMIT)
    }

    /// Starts at the end of the path: usually only the last component is missing.
    fn made(&self, path: &Path, links: Symlinks, links_left: usize) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let missing = match self.open(path, flags, links) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => error,
            other => return other,
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(missing);
        };
        let parent = self.made(parent, links, links_left)?;
        let created = rustix::fs::mkdirat(&parent, name, Mode::from(0o755));
        match (created, self.link_target(path)) {
            (Err(Errno::EXIST), Some(target)) if links_left > 0 => {
                self.made(&target, links, links_left - 1)
            }
            (created, _) => {
                allow_existing(created)?;
                self.open(path, flags, links)
            }
        }
    }

    /// Opens the file at `path` with `O_PATH`. Creates a missing file and missing directories. Through a dangling
    /// symbolic link (images have `/etc/resolv.conf` as a link into `/run`) the file is created where the link leads,
    /// inside the root.
    pub(crate) fn file(&self, path: &Path, links: Symlinks) -> io::Result<OwnedFd> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_LIMIT {
            match self.open(&path, OFlags::PATH, links) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
            match self.link_target(&path) {
                Some(target) => path = target,
                None => {
                    self.create_file(&path, links)?;
                    return self.open(&path, OFlags::PATH, links);
                }
            }
        }
        Err(Errno::LOOP.into())
    }

    fn create_file(&self, path: &Path, links: Symlinks) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let parent = self.made(parent, links, LINKS_LIMIT)?;
        let (kind, mode) = (FileType::RegularFile, Mode::from(0o644));
        allow_existing(rustix::fs::mknodat(parent, name, kind, mode, 0))
    }

    /// Where a symbolic link at `path` leads; none if there is no link. The kernel resolves what is before its name.
    fn link_target(&self, path: &Path) -> Option<PathBuf> {
        let (parent, name) = (path.parent()?, path.file_name()?);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = self.open(parent, flags, Symlinks::InRoot).ok()?;
        let target = rustix::fs::readlinkat(&directory, name, Vec::new()).ok()?;
        let target = Path::new(OsStr::from_bytes(target.as_bytes()));
        Some(parent.join(target))
    }

    /// Opens the parent directory of `path`, created if missing, and returns it with the last component.
    pub(crate) fn parent<'a>(
        &self,
        path: &'a Path,
        links: Symlinks,
    ) -> io::Result<(OwnedFd, &'a Path)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok((self.directory(parent, links)?, Path::new(name)))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Opens `path` beneath a directory, which acts as the root.
pub(crate) fn open_below(
    directory: &impl AsFd,
    path: &Path,
    flags: OFlags,
    links: Symlinks,
) -> io::Result<OwnedFd> {
    let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if links == Symlinks::Refuse {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    for _ in 0..ATTEMPTS {
        let flags = flags | OFlags::CLOEXEC;
        match rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

fn check_names(path: &Path) -> io::Result<()> {
    if path.components().any(|part| part == Component::ParentDir) {
        let message = "a path with `..`";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(())
}

fn allow_existing(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests;
