//! Path resolution inside an untrusted root file system. The kernel resolves paths beneath the root (`openat2(2)`) and
//! never through magic links. Results are descriptors, so that a symbolic link cannot change between check and use.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// How often a lookup is repeated because something was renamed meanwhile.
const ATTEMPTS: usize = 16;

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

    /// Opens the directory at `path`. Creates missing directories.
    pub(crate) fn directory(&self, path: &Path, links: Symlinks) -> io::Result<OwnedFd> {
        check_names(path)?;
        self.made(&Path::new("/").join(path), links)
    }

    /// Starts at the end of the path: usually only the last component is missing.
    fn made(&self, path: &Path, links: Symlinks) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let missing = match self.open(path, flags, links) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => error,
            other => return other,
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(missing);
        };
        let parent = self.made(parent, links)?;
        allow_existing(rustix::fs::mkdirat(&parent, name, Mode::from(0o755)))?;
        self.open(path, flags, links)
    }

    /// Opens the file at `path` with `O_PATH`. Creates a missing file and missing directories. A dangling symbolic
    /// link (images have `/etc/resolv.conf` as a link into `/run`) is replaced by the file.
    pub(crate) fn file(&self, path: &Path, links: Symlinks) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH, links) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.remove_link(path, links)?;
                self.make_file(path, links)?;
                self.open(path, OFlags::PATH, links)
            }
            other => other,
        }
    }

    fn make_file(&self, path: &Path, links: Symlinks) -> io::Result<()> {
        let (parent, name) = self.parent(path, links)?;
        let (kind, mode) = (FileType::RegularFile, Mode::from(0o644));
        allow_existing(rustix::fs::mknodat(parent, name, kind, mode, 0))
    }

    fn remove_link(&self, path: &Path, links: Symlinks) -> io::Result<()> {
        let (parent, name) = self.parent(path, links)?;
        match rustix::fs::readlinkat(&parent, name, Vec::new()) {
            Ok(_) => Ok(rustix::fs::unlinkat(&parent, name, AtFlags::empty())?),
            Err(_) => Ok(()),
        }
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
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(directory.path()).unwrap().into();
        (directory, Root(fd))
    }

    #[test]
    fn absolute_links_stay_inside() {
        let (directory, root) = root();
        symlink("/etc", directory.path().join("run")).unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        root.file(Path::new("/run/made"), Symlinks::InRoot).unwrap();
        assert!(directory.path().join("etc/made").is_file());
        assert!(!Path::new("/etc/made").exists());
    }

    #[test]
    fn climbing_links_stay_inside() {
        let (directory, root) = root();
        symlink("../../../../..", directory.path().join("up")).unwrap();
        root.directory(Path::new("/up/made/here"), Symlinks::InRoot)
            .unwrap();
        assert!(directory.path().join("made/here").is_dir());
    }

    #[test]
    fn links_are_refused_where_asked() {
        let (directory, root) = root();
        symlink("/elsewhere", directory.path().join("proc")).unwrap();
        let error = root
            .directory(Path::new("/proc"), Symlinks::Refuse)
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn a_dangling_link_is_replaced_by_a_file() {
        let (directory, root) = root();
        let link = directory.path().join("resolv.conf");
        symlink("../run/nowhere/resolv.conf", &link).unwrap();
        root.file(Path::new("/resolv.conf"), Symlinks::InRoot)
            .unwrap();
        assert!(link.symlink_metadata().unwrap().is_file());
        assert!(!directory.path().join("run").exists());
    }

    #[test]
    fn parents_are_made_and_dots_refused() {
        let (directory, root) = root();
        root.directory(Path::new("/a/b/c"), Symlinks::InRoot)
            .unwrap();
        root.directory(Path::new("/a/b/c"), Symlinks::InRoot)
            .unwrap();
        assert!(directory.path().join("a/b/c").is_dir());
        assert!(
            root.directory(Path::new("/a/../x"), Symlinks::InRoot)
                .is_err()
        );
    }
}
