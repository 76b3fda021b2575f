//! Creating files below a directory's descriptor.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rustic_core::repofile::{Metadata, Node};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
        XattrFlags, chmodat, chownat, fsync, linkat, lsetxattr, mkdirat, mknodat, open, openat,
        openat2, statat, symlinkat, syncfs, utimensat,
    },
    io::Errno,
};

use crate::{
    Class, Failure,
    engine::{failure::Attempt, mode, source::handle},
};

/// Blocks of zeros of this size become holes.
const BLOCK_BYTES: usize = 4096;

/// Opens the target, which has to be an empty directory.
///
/// # Errors
/// It is none.
pub(super) fn empty_directory(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty()).attempt(Class::Target, "open", path)?;
    let entries = Dir::read_from(&directory).attempt(Class::Target, "list", path)?;
    for entry in entries {
        let entry = entry.attempt(Class::Target, "list", path)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            let (path, name) = (path.display(), String::from_utf8_lossy(name).into_owned());
            let message = format!(
                "{path} is not empty, it has {name:?}: nothing is restored over what is there"
            );
            return Err(Failure::new(Class::Target, message));
        }
    }
    Ok(directory)
}

/// Waits until everything is on the disk.
pub(super) fn synchronise(target: &OwnedFd, path: &Path) -> Result<(), Failure> {
    syncfs(target).attempt(Class::Target, "synchronise", path)
}

/// A directory that is being filled.
pub(super) struct Place {
    root: Arc<OwnedFd>,
    directory: OwnedFd,
    /// Below the target.
    inner: PathBuf,
    /// On this host.
    path: PathBuf,
}

impl Place {
    pub(super) fn root(target: &OwnedFd, path: &Path) -> Result<Self, Failure> {
        let attempt = || Ok::<_, std::io::Error>((target.try_clone()?, target.try_clone()?));
        let (root, directory) = attempt().attempt(Class::Target, "open", path)?;
        Ok(Self {
            root: Arc::new(root),
            directory,
            inner: PathBuf::new(),
            path: path.to_owned(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A new entry; none if the name is not one component.
    pub(super) fn entry(&self, name: &OsStr) -> Option<Entry<'_>> {
        let bytes = name.as_bytes();
        let plain = !bytes.is_empty() && !bytes.contains(&b'/') && !bytes.contains(&0);
        (plain && bytes != b"." && bytes != b"..").then(|| Entry {
            place: self,
            name: name.to_owned(),
            path: self.path.join(name),
        })
    }

    /// Sets the directory's own attributes, after everything in it is there.
    pub(super) fn finish(&self, node: &Node) -> Result<(), Failure> {
        let own = Entry {
            place: self,
            name: ".".into(),
            path: self.path.clone(),
        };
        own.attributes(&node.meta, true)?;
        fsync(&self.directory).attempt(Class::Target, "synchronise", &self.path)
    }
}

/// An entry that is being created.
pub(super) struct Entry<'a> {
    place: &'a Place,
    name: OsString,
    path: PathBuf,
}

impl Entry<'_> {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its path below the target.
    pub(super) fn inner_path(&self) -> PathBuf {
        self.place.inner.join(&self.name)
    }

    fn attempt<T>(&self, what: &str, result: Result<T, Errno>) -> Result<T, Failure> {
        match result {
            Err(Errno::EXIST) => Err(Failure::new(
                Class::Damaged,
                format!(
                    "the snapshot has {} twice: the repository is damaged",
                    self.path.display()
                ),
            )),
            result => result.attempt(Class::Target, what, &self.path),
        }
    }

    /// Creates a directory. It gets its attributes when it is full.
    pub(super) fn directory(&self) -> Result<Place, Failure> {
        let at = &self.place.directory;
        self.attempt("create", mkdirat(at, &self.name, Mode::RWXU))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = self.attempt("open", openat(at, &self.name, flags, Mode::empty()))?;
        Ok(Place {
            root: Arc::clone(&self.place.root),
            directory,
            inner: self.inner_path(),
            path: self.path.clone(),
        })
    }

    /// Creates a file.
    pub(super) fn file(&self) -> Result<Writer<'_>, Failure> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.place.directory, &self.name, flags, mode);
        Ok(Writer {
            file: self.attempt("create", file)?.into(),
            length: 0,
            entry: self,
        })
    }

    /// Creates a further link to a file.
    pub(super) fn hard_link(&self, place: &Place, first: &Path) -> Result<(), Failure> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = openat2(&*place.root, first, flags, Mode::empty(), within);
        let file = self.attempt("link", file)?;
        let stat = self.attempt("link", statat(&file, "", AtFlags::EMPTY_PATH))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return self.attempt("link", Err(Errno::PERM));
        }
        let (from, to) = (handle(&file, OsStr::new("")), &self.name);
        let from = from.as_os_str().as_bytes();
        let from = OsStr::from_bytes(from.strip_suffix(b"/").unwrap_or(from));
        let linked = linkat(
            rustix::fs::CWD,
            from,
            &self.place.directory,
            to,
            AtFlags::SYMLINK_FOLLOW,
        );
        self.attempt("link", linked)
    }

    /// Creates a symbolic link, wherever it points to.
    pub(super) fn symbolic_link(&self, node: &Node) -> Result<(), Failure> {
        let target = node.node_type.to_link();
        let created = symlinkat(target, &self.place.directory, &self.name);
        self.attempt("create", created)?;
        self.attributes(&node.meta, false)
    }

    /// Creates a named pipe.
    pub(super) fn pipe(&self, node: &Node) -> Result<(), Failure> {
        let (at, mode) = (&self.place.directory, Mode::RUSR | Mode::WUSR);
        let created = mknodat(at, &self.name, FileType::Fifo, mode, 0);
        self.attempt("create", created)?;
        self.attributes(&node.meta, true)
    }

    /// Sets owner, extended attributes, mode and times, in this order: a new owner clears bits of the mode, and
    /// capabilities of files.
    fn attributes(&self, metadata: &Metadata, has_mode: bool) -> Result<(), Failure> {
        let at = &self.place.directory;
        if let (Some(uid), Some(gid)) = (metadata.uid, metadata.gid) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let owned = chownat(
                at,
                &self.name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            );
            self.attempt("change the owner of", owned)?;
        }
        let handle = handle(at, &self.name);
        for attribute in &metadata.extended_attributes {
            let value = attribute.value.as_deref().unwrap_or_default();
            let set = lsetxattr(&handle, &attribute.name, value, XattrFlags::empty());
            self.attempt("set extended attributes of", set)?;
        }
        if let Some(mode) = metadata.mode.filter(|_| has_mode) {
            let mode = Mode::from_raw_mode(mode::from_go(mode));
            // What is here was created by this program, and is no link.
            self.attempt(
                "change the mode of",
                chmodat(at, &self.name, mode, AtFlags::empty()),
            )?;
        }
        if let Some(times) = times(metadata) {
            let set = utimensat(at, &self.name, &times, AtFlags::SYMLINK_NOFOLLOW);
            self.attempt("set the times of", set)?;
        }
        Ok(())
    }
}

/// Writes a file.
pub(super) struct Writer<'a> {
    file: File,
    length: u64,
    entry: &'a Entry<'a>,
}

impl Writer<'_> {
    /// Appends content; zeros become holes.
    pub(super) fn write(&mut self, content: &[u8]) -> Result<(), Failure> {
        let mut write = || {
            // Blocks of the file, whatever piece they come in.
            let lead = BLOCK_BYTES - (self.length as usize % BLOCK_BYTES);
            let (first, rest) = content.split_at(lead.min(content.len()));
            let mut at = self.length;
            for block in std::iter::once(first).chain(rest.chunks(BLOCK_BYTES)) {
                if block.iter().any(|byte| *byte != 0) {
                    self.file.write_all_at(block, at)?;
                }
                at += block.len() as u64;
            }
            self.length = at;
            std::io::Result::Ok(())
        };
        write().attempt(Class::Target, "write", &self.entry.path)
    }

    /// Sets length and attributes.
    pub(super) fn finish(self, node: &Node) -> Result<(), Failure> {
        let length = self.file.set_len(self.length);
        length.attempt(Class::Target, "write", &self.entry.path)?;
        self.entry.attributes(&node.meta, true)
    }
}

fn times(metadata: &Metadata) -> Option<Timestamps> {
    let modified = timespec(metadata.mtime?);
    Some(Timestamps {
        last_access: metadata.atime.map_or(modified, timespec),
        last_modification: modified,
    })
}

fn timespec(time: Timestamp) -> Timespec {
    // Before 1970 the kernel counts nanoseconds forwards, jiff backwards.
    let nanoseconds = time.as_nanosecond();
    let second = nanoseconds.div_euclid(1_000_000_000);
    Timespec {
        tv_sec: second as _,
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000) as _,
    }
}
