//! A tree of files, read while its owner may still change it, or plant traps in it.
//!
//! Every directory is opened from its parent's descriptor, and no symbolic link is ever followed: a process that swaps a
//! directory for a link to the host's files gets them into no snapshot.

mod entry;

use std::{
    ffi::{CString, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use rustic_core::{ReadSource, ReadSourceEntry, RusticResult};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, open, openat, statat, syncfs},
    io::Errno,
};

use super::{Problems, lock};
use crate::{
    Class, Failure,
    engine::{
        control::{Caller, Reporter},
        failure::Attempt,
    },
};

use entry::Facts;
pub(in crate::engine) use entry::{Opener, handle};

/// Name of the stored directory in the snapshot. It has an entry of its own there, since a snapshot's root has neither
/// owner nor mode.
pub(in crate::engine) const ROOT: &str = "data";

/// Resolution of files' times that is counted on (seconds).
const RESOLUTION: i64 = 2;

/// A directory and everything below it.
#[derive(Debug)]
pub(in crate::engine) struct TreeSource {
    walk: Mutex<Option<Walk>>,
}

impl TreeSource {
    /// # Errors
    /// There is no such directory.
    pub(in crate::engine) fn new(
        path: &Path,
        depth: u32,
        caller: Arc<Caller>,
        problems: Problems,
        reporter: Reporter,
    ) -> Result<Self, Failure> {
        let start = Timestamp::now();
        let attempt = |what, result: Result<_, Errno>| result.attempt(Class::Source, what, path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = attempt("open", open(path, flags, Mode::empty()))?;
        // Writes to mapped memory move a file's time only when the kernel has written the page before: from here on each
        // first write does.
        syncfs(&root).attempt(Class::Source, "synchronise", path)?;
        let stat = fstat(&root).attempt(Class::Source, "read the attributes of", path)?;
        let facts = Facts {
            settled_before: start.as_second() - RESOLUTION,
            unsettled: unsettled(start),
            path: path.to_owned(),
            device: stat.st_dev,
        };
        Ok(Self {
            walk: Mutex::new(Some(Walk {
                root: Some((root, stat)),
                levels: Vec::new(),
                shared: Arc::new(Shared {
                    facts,
                    depth: depth as usize,
                    caller,
                    problems,
                    reporter,
                }),
            })),
        })
    }
}

impl ReadSource for TreeSource {
    type Open = Opener;
    type Iter = std::iter::Flatten<std::option::IntoIter<Walk>>;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Self::Iter {
        lock(&self.walk).take().into_iter().flatten()
    }
}

/// What the walk and the open files share.
#[derive(Debug)]
struct Shared {
    facts: Facts,
    depth: usize,
    caller: Arc<Caller>,
    problems: Problems,
    reporter: Reporter,
}

/// The walk: each directory before what is in it, by the order of names.
#[derive(Debug)]
pub(in crate::engine) struct Walk {
    root: Option<(OwnedFd, Stat)>,
    levels: Vec<Level>,
    shared: Arc<Shared>,
}

/// A directory of which entries are left.
#[derive(Debug)]
struct Level {
    directory: Arc<OwnedFd>,
    /// In the snapshot.
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
}

type Entry = ReadSourceEntry<Opener>;

impl Iterator for Walk {
    type Item = RusticResult<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((root, stat)) = self.root.take() {
            return self.begin(root, &stat).map(Ok);
        }
        loop {
            // What went wrong is told at the end; nothing more is read.
            if self.shared.caller.still_there().is_err() || self.shared.problems.failed() {
                return None;
            }
            let level = self.levels.last_mut()?;
            let Some(name) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            let directory = Arc::clone(&level.directory);
            let path = level.path.join(&name);
            if let Some(entry) = self.visit(&directory, name, path) {
                return Some(Ok(entry));
            }
        }
    }
}

impl Walk {
    fn begin(&mut self, root: OwnedFd, stat: &Stat) -> Option<Entry> {
        let path = PathBuf::from("/").join(ROOT);
        let root = Arc::new(root);
        let node = self
            .shared
            .node(&root, ".".as_ref(), ROOT.as_ref(), stat, &path)?;
        self.enter(root, path.clone())?;
        Some(Entry {
            path,
            node,
            open: None,
        })
    }

    /// The entry of a name; none if it is left out.
    fn visit(&mut self, directory: &Arc<OwnedFd>, name: OsString, path: PathBuf) -> Option<Entry> {
        let shared = Arc::clone(&self.shared);
        let stat = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(error) => return shared.lost("read the attributes of", &path, error),
        };
        if stat.st_dev != shared.facts.device {
            let path = shared.shown(&path);
            shared
                .problems
                .warn(format!("{path} is on another file system: it is left out"));
            return None;
        }
        let node = shared.node(directory, &name, &name, &stat, &path)?;
        if node.is_dir() {
            if self.levels.len() >= shared.depth {
                let (path, depth) = (shared.shown(&path), shared.depth);
                let problem = format!("{path} is deeper than {depth} directories (depth)");
                shared.problems.unreadable(problem);
                return None;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(directory, &name, flags, Mode::empty()) {
                Ok(opened) => self.enter(Arc::new(opened), path.clone())?,
                Err(error) => return shared.lost("open", &path, error),
            }
            return Some(Entry {
                path,
                node,
                open: None,
            });
        }
        shared.problems.announce();
        let open = Opener::new(Arc::clone(directory), name, &stat, path.clone(), shared);
        Some(Entry {
            path,
            node,
            open: Some(open),
        })
    }

    /// Goes into a directory.
    fn enter(&mut self, directory: Arc<OwnedFd>, path: PathBuf) -> Option<()> {
        match names(&directory) {
            Ok(names) => {
                self.levels.push(Level {
                    directory,
                    path,
                    names: names.into_iter(),
                });
                Some(())
            }
            Err(error) => self.shared.lost("list", &path, error),
        }
    }
}

/// A time that no file has, and no other run gives.
fn unsettled(start: Timestamp) -> Timestamp {
    Timestamp::from_nanosecond(-start.as_nanosecond()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The names in a directory, in the order of the repository's format.
fn names(directory: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name: CString = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(OsString::from_vec(name.into_bytes()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Shared {
    /// A path of the snapshot as it is on this host.
    fn shown(&self, path: &Path) -> String {
        let inner = path.strip_prefix(Path::new("/").join(ROOT));
        let path = self.facts.path.join(inner.unwrap_or(path));
        path.display().to_string()
    }

    /// Notes that something cannot be read. What has vanished meanwhile is no reason to fail.
    fn lost<T>(&self, what: &str, path: &Path, error: Errno) -> Option<T> {
        let path = self.shown(path);
        match error {
            // Replaced by something else: what is there now has a time of its own, and is read by the next pass.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => {
                let warning = format!("{path} vanished while it was read: it is left out");
                self.problems.warn(warning);
            }
            error => self
                .problems
                .unreadable(format!("cannot {what} {path}: {error}")),
        }
        None
    }
}

/// Whether a file is of the kind that has content.
fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}
