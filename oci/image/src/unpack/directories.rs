//! Caches open directories of a layer that is being unpacked: most entries lie in the directory of the previous one.
//!
//! The kernel resolves every path within the layer (openat2(2)), so that no symbolic link of a hostile layer leads out
//! of it. A directory's modification time is set when it is closed, since each new entry changes it.

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT,
        XattrFlags, fchmod, fsetxattr, fstat, futimens, makedev, mkdirat, openat2, readlinkat,
        statat, unlinkat,
    },
    io::{Errno, Result},
};

use crate::{
    layer::{
        path::split,
        xattrs::{IMPLIED, MARK},
    },
    limits::PATH_DEPTH,
    tarball::header::Time,
};

/// Most open directories.
const OPEN_DIRECTORIES: usize = 64;
/// Most symbolic links in one path, as in the kernel (path_resolution(7)).
const LINKS: usize = 40;
/// Mode of a directory without an entry of its own.
const IMPLIED_MODE: Mode = Mode::from_raw_mode(0o755);

/// The directories of a layer.
#[derive(Debug)]
pub(crate) struct Directories<'a> {
    root: BorrowedFd<'a>,
    open: HashMap<Vec<u8>, Directory>,
    /// Directories without an entry of their own, and the most of them.
    implied: u64,
    most_implied: u64,
}

#[derive(Debug)]
struct Directory {
    fd: OwnedFd,
    mtime: Time,
}

impl<'a> Directories<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>, most_implied: u64) -> Self {
        Self {
            root,
            open: HashMap::new(),
            implied: 0,
            most_implied,
        }
    }

    /// How many directories were created without an entry of their own.
    pub(crate) fn implied(&self) -> u64 {
        self.implied
    }

    /// The open directory at `path`; missing directories are created.
    pub(crate) fn get(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>> {
        let real_path = match self.open.contains_key(path) {
            true => None,
            false => Some(self.real_path(path)?),
        };
        let path = real_path.as_deref().unwrap_or(path);
        if path.is_empty() {
            return Ok(self.root);
        }
        let directory = self.open.get(path).ok_or(Errno::NOENT)?;
        Ok(directory.fd.as_fd())
    }

    /// Sets the directory's final modification time.
    pub(crate) fn set_mtime(&mut self, path: &[u8], mtime: Time) -> Result<()> {
        let real_path = self.real_path(path)?;
        if let Some(directory) = self.open.get_mut(&real_path) {
            directory.mtime = mtime;
        }
        Ok(())
    }

    /// Opens the existing directory at `path` without following symbolic links.
    pub(crate) fn get_existing(&self, path: &[u8]) -> Result<OwnedFd> {
        open_beneath(
            self.root,
            path,
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    }

    /// Whether a whiteout of this layer hides a directory of the lower layers, so that nothing is left to hide in it.
    pub(crate) fn is_hidden(&self, path: &[u8]) -> Result<bool> {
        if self.open.contains_key(path) || !matches!(self.get_existing(path), Err(Errno::NOTDIR)) {
            return Ok(false);
        }
        let mut parent = self.get_existing(b"")?;
        for name in path.split(|byte| *byte == b'/') {
            if is_whiteout(parent.as_fd(), name)? {
                return Ok(true);
            }
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            match open_beneath(parent.as_fd(), name, beneath) {
                Ok(next) => parent = next,
                Err(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Removes the file or directory at `path`; returns its metadata.
    pub(crate) fn remove(&mut self, path: &[u8]) -> Result<Stat> {
        // Directories within it may be open, or reached through a removed link.
        self.close()?;
        let (parent, name) = split(path);
        let parent = self.get(parent)?;
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            remove_tree(parent, name)?;
        } else {
            unlinkat(parent, name, AtFlags::empty())?;
        }
        Ok(stat)
    }

    /// Sets the times of all open directories and closes them.
    pub(crate) fn close(&mut self) -> Result<()> {
        for (_, directory) in self.open.drain() {
            futimens(&directory.fd, &times(directory.mtime))?;
        }
        Ok(())
    }

    fn remember(&mut self, path: &[u8], fd: OwnedFd, mtime: Time) -> Result<()> {
        if self.open.len() >= OPEN_DIRECTORIES {
            self.close()?;
        }
        self.open.insert(path.to_vec(), Directory { fd, mtime });
        Ok(())
    }

    /// Opens the directory at `path`, and returns its path without symbolic links. Each directory is open once: two
    /// descriptors would set different times.
    fn real_path(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        if path.is_empty() || self.open.contains_key(path) {
            return Ok(path.to_vec());
        }
        match self.get_existing(path) {
            Ok(fd) => {
                let mtime = mtime_of(&fstat(&fd)?);
                self.remember(path, fd, mtime)?;
                Ok(path.to_vec())
            }
            Err(Errno::NOENT | Errno::NOTDIR) => self.make(path),
            // A symbolic link of this layer is followed within it, as tar does.
            Err(Errno::LOOP) => self.follow(path),
            Err(error) => Err(error),
        }
    }

    fn make(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let (parent, name) = split(path);
        let mut real_path = self.real_path(parent)?;
        let parent = self.get(&real_path)?;
        let replaces_whiteout = match mkdirat(parent, name, IMPLIED_MODE) {
            Ok(()) => false,
            Err(Errno::EXIST) if is_whiteout(parent, name)? => {
                unlinkat(parent, name, AtFlags::empty())?;
                mkdirat(parent, name, IMPLIED_MODE)?;
                true
            }
            Err(Errno::EXIST) => return Err(Errno::NOTDIR),
            Err(error) => return Err(error),
        };
        let fd = open_beneath(
            parent,
            name,
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )?;
        // Independent of the umask.
        fchmod(&fd, IMPLIED_MODE)?;
        self.implied += 1;
        if self.implied > self.most_implied {
            return Err(Errno::MLINK);
        }
        match replaces_whiteout {
            // The lower layers' directory of this name is gone, with its mode and owner.
            true => set_opaque(fd.as_fd())?,
            false => set_mark(fd.as_fd(), IMPLIED)?,
        }
        if !real_path.is_empty() {
            real_path.push(b'/');
        }
        real_path.extend_from_slice(name);
        self.remember(&real_path, fd, Time::default())?;
        Ok(real_path)
    }

    fn follow(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let real_path = match self.resolve(path) {
            Ok(real_path) => real_path,
            // The last name may be missing in the directory behind a link.
            Err(Errno::NOENT) => return self.make(path),
            Err(error) => return Err(error),
        };
        if !real_path.is_empty() && !self.open.contains_key(&real_path) {
            let fd = self.get_existing(&real_path)?;
            let mtime = mtime_of(&fstat(&fd)?);
            self.remember(&real_path, fd, mtime)?;
        }
        Ok(real_path)
    }

    /// Resolves `path` with the layer as root, and returns the path without symbolic links. It is resolved name by name,
    /// since `/proc` may be unavailable here.
    fn resolve(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut left = names_backwards(path);
        let mut resolved: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    resolved.pop();
                    continue;
                }
                _ => {}
            }
            match readlinkat(self.get_existing(&resolved.join(&b'/'))?, &name, Vec::new()) {
                // Not a link.
                Err(Errno::INVAL) => resolved.push(name),
                Err(error) => return Err(error),
                Ok(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    if target.as_bytes().starts_with(b"/") {
                        resolved.clear();
                    }
                    left.append(&mut names_backwards(target.as_bytes()));
                }
            }
            // Links could make paths of any depth, and removing the layer must be able to descend.
            if resolved.len() > PATH_DEPTH {
                return Err(Errno::NAMETOOLONG);
            }
        }
        Ok(resolved.join(&b'/'))
    }
}

fn names_backwards(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|byte| *byte == b'/')
        .map(<[u8]>::to_vec)
        .collect()
}

/// Removes a directory and its content. The depth of a layer is limited, so the recursion is too.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let directory = open_beneath(
        parent,
        name,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(&directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(directory.as_fd(), name.to_bytes())?,
            removed => removed?,
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Sets the mark of a directory. Without root, or on a file system without such attributes, there are no marks.
pub(crate) fn set_mark(directory: BorrowedFd<'_>, mark: &[u8]) -> Result<()> {
    match fsetxattr(directory, MARK, mark, XattrFlags::empty()) {
        Err(Errno::PERM | Errno::NOTSUP) => Ok(()),
        set => set,
    }
}

/// Makes a directory opaque: overlayfs hides the content of the lower layers in it.
pub(crate) fn set_opaque(directory: BorrowedFd<'_>) -> Result<()> {
    fsetxattr(
        directory,
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
}

/// Whether this is overlayfs's whiteout.
fn is_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    Ok(kind == FileType::CharacterDevice && stat.st_rdev == makedev(0, 0))
}

/// Sets the modification time and leaves the access time.
pub(crate) fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanoseconds.into(),
        },
    }
}

fn mtime_of(stat: &Stat) -> Time {
    Time {
        seconds: stat.st_mtime,
        // Always less than a second.
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    }
}

fn open_beneath(root: BorrowedFd<'_>, path: &[u8], resolve: ResolveFlags) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let path = if path.is_empty() { b"." } else { path };
    loop {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel asks for another try when something is renamed meanwhile.
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
}
