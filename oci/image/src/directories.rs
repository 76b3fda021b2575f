//! Open directories of a layer that is being unpacked: most entries lie where the one before lay.
//!
//! Every path is resolved by the kernel within the layer (openat2(2)): no symbolic link of a hostile layer
//! leads out of it. A directory's time of change is set when it is closed, since each entry changes it.

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

use crate::{header::Time, limits::PATH_DEPTH, path::split};

/// How many are open at most.
const OPEN: usize = 64;
/// Most links on the way to a directory, as the kernel has it (path_resolution(7)).
const LINKS: usize = 40;
/// What a directory that no entry tells of looks like.
const IMPLIED_MODE: Mode = Mode::from_raw_mode(0o755);

/// The directories of a layer.
#[derive(Debug)]
pub(crate) struct Directories<'a> {
    root: BorrowedFd<'a>,
    open: HashMap<Vec<u8>, Directory>,
}

#[derive(Debug)]
struct Directory {
    fd: OwnedFd,
    mtime: Time,
}

impl<'a> Directories<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>) -> Self {
        Self {
            root,
            open: HashMap::new(),
        }
    }

    /// The open directory at `path`; it and those above it are made where they are missing.
    pub(crate) fn get(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>> {
        let own_path = match self.open.contains_key(path) {
            true => None,
            false => Some(self.own_path(path)?),
        };
        let path = own_path.as_deref().unwrap_or(path);
        if path.is_empty() {
            return Ok(self.root);
        }
        let directory = self.open.get(path).ok_or(Errno::NOENT)?;
        Ok(directory.fd.as_fd())
    }

    /// Sets the time that the directory gets in the end.
    pub(crate) fn set_mtime(&mut self, path: &[u8], mtime: Time) -> Result<()> {
        let own_path = self.own_path(path)?;
        if let Some(directory) = self.open.get_mut(&own_path) {
            directory.mtime = mtime;
        }
        Ok(())
    }

    /// The directory at `path` for reading only what is there; no symbolic link is followed.
    pub(crate) fn get_existing(&self, path: &[u8]) -> Result<OwnedFd> {
        open_beneath(
            self.root,
            path,
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    }

    /// Removes what is at `path`, whatever it is; what it was.
    pub(crate) fn remove(&mut self, path: &[u8]) -> Result<Stat> {
        // Directories within it may be open, and links that led to others may be gone.
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

    /// Closes all of them, with their times set.
    pub(crate) fn close(&mut self) -> Result<()> {
        for (_, directory) in self.open.drain() {
            futimens(&directory.fd, &times(directory.mtime))?;
        }
        Ok(())
    }

    fn remember(&mut self, path: &[u8], fd: OwnedFd, mtime: Time) -> Result<()> {
        if self.open.len() >= OPEN {
            self.close()?;
        }
        self.open.insert(path.to_vec(), Directory { fd, mtime });
        Ok(())
    }

    /// The path without links of the directory that `path` leads to, which is open then. One directory is open once:
    /// two of them would each set another time.
    fn own_path(&mut self, path: &[u8]) -> Result<Vec<u8>> {
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
            // A link of this layer is followed, as tar programs do, as if the layer were the whole system.
            Err(Errno::LOOP) => self.follow(path),
            Err(error) => Err(error),
        }
    }

    fn make(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let (parent, name) = split(path);
        let mut own_path = self.own_path(parent)?;
        let parent = self.get(&own_path)?;
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
        // Whatever the umask is.
        fchmod(&fd, IMPLIED_MODE)?;
        if replaces_whiteout {
            set_opaque(fd.as_fd())?;
        }
        if !own_path.is_empty() {
            own_path.push(b'/');
        }
        own_path.extend_from_slice(name);
        self.remember(&own_path, fd, Time::default())?;
        Ok(own_path)
    }

    fn follow(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let own_path = match self.resolve(path) {
            Ok(own_path) => own_path,
            // The last name may be missing in a directory that a link leads to.
            Err(Errno::NOENT) => return self.make(path),
            Err(error) => return Err(error),
        };
        if !own_path.is_empty() && !self.open.contains_key(&own_path) {
            let fd = self.get_existing(&own_path)?;
            let mtime = mtime_of(&fstat(&fd)?);
            self.remember(&own_path, fd, mtime)?;
        }
        Ok(own_path)
    }

    /// The path without links of what `path` leads to, if the layer were the whole system. Found out name by name: there
    /// may be no `/proc` here that would tell it of an open directory.
    fn resolve(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut left = names_backwards(path);
        let mut own: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    own.pop();
                    continue;
                }
                _ => {}
            }
            match readlinkat(self.get_existing(&own.join(&b'/'))?, &name, Vec::new()) {
                // Not a link.
                Err(Errno::INVAL) => own.push(name),
                Err(error) => return Err(error),
                Ok(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    if target.as_bytes().starts_with(b"/") {
                        own.clear();
                    }
                    left.append(&mut names_backwards(target.as_bytes()));
                }
            }
            // Links could chain paths to any depth, and what removes the layer must be able to descend.
            if own.len() > PATH_DEPTH {
                return Err(Errno::NAMETOOLONG);
            }
        }
        Ok(own.join(&b'/'))
    }
}

fn names_backwards(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|byte| *byte == b'/')
        .map(<[u8]>::to_vec)
        .collect()
}

/// Removes a directory with all that is in it; as deep as layers are, which is bounded.
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

/// Marks a directory so that overlayfs shows nothing of the layers beneath in it.
pub(crate) fn set_opaque(directory: BorrowedFd<'_>) -> Result<()> {
    fsetxattr(
        directory,
        "trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )
}

/// Whether overlayfs would take this for a sign that the lower layers' name is gone.
fn is_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    Ok(kind == FileType::CharacterDevice && stat.st_rdev == makedev(0, 0))
}

/// The times of a file: that of its change; that of its use is left to the kernel.
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
        // The kernel keeps it below a second.
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
