//! What the confined process does: it makes the tree of a manifest, writes the contents into it, and gives everything its metadata.
//!
//! Everything is safe to repeat: a process that is killed leaves a part of the tree, and the next one goes on with the first file that
//! is not as long as it is to be.

use std::{
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, chownat,
        fchmod, fchown, fstat, ftruncate, futimens, linkat, mkdirat, mknodat, openat, statat,
        symlinkat, utimensat,
    },
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{
    Fault, attributes,
    entry::{Entry, Kind, stored_bytes},
    frames::{self, Frame},
    position::{Position, Tree},
};

/// Bytes between two reports of progress.
const PROGRESS_BYTES: u64 = 4 << 20;

/// Where the contents go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The number of the first regular file that is not whole.
    pub entry: u64,
    /// The bytes of it that are there.
    pub offset: u64,
    /// The bytes of all files that are there.
    pub done: u64,
    /// All bytes.
    pub total: u64,
}

/// Makes everything but the contents. Returns where those go on.
///
/// # Errors
/// The first entry that cannot be made.
pub fn make(root: &impl AsFd, entries: &[Entry]) -> Result<Resume, Fault> {
    let tree = Tree::new(entries);
    let mut position = Position::at_root(root.as_fd())?;
    let mut resume = None;
    let mut done = 0_u64;
    for (index, entry) in entries.iter().enumerate().skip(1) {
        let directory = position.directory_of(&tree, index)?;
        let made = make_one(root.as_fd(), directory, &tree, index)?;
        let Kind::File { size, stored } = entry.kind else {
            continue;
        };
        let present = made.map_or(0, |found| found.st_size.cast_unsigned());
        let number = index as u64;
        match resume {
            None if present == size => done += stored,
            None => {
                let offset = if present < size { present } else { 0 };
                done += offset.min(stored);
                resume = Some((number, offset));
            }
            Some(_) => {}
        }
    }
    let (entry, offset) = resume.unwrap_or((entries.len() as u64, 0));
    let total = stored_bytes(entries);
    Ok(Resume {
        entry,
        offset,
        done,
        total,
    })
}

/// Makes one entry unless it is there. Returns what a regular file has.
fn make_one(
    root: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    tree: &Tree<'_>,
    index: usize,
) -> Result<Option<Stat>, Fault> {
    let name = tree.name(index)?;
    let made = match &tree.entries[index].kind {
        Kind::Directory => mkdirat(directory, &name, Mode::RWXU),
        Kind::File { .. } => {
            // Not in one call: the kernel refuses to create what is there in a directory such as /tmp (`fs.protected_regular`).
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | CLOSED;
            let file = match openat(directory, &name, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    let flags = flags | OFlags::CREATE | OFlags::EXCL;
                    openat(directory, &name, flags, Mode::RUSR | Mode::WUSR)
                }
                opened => opened,
            };
            let file = file.map_err(|errno| tree.failed("create", index, errno))?;
            let found = fstat(&file).map_err(|errno| tree.failed("examine", index, errno))?;
            if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
                return Err(tree.failed("create", index, Errno::EXIST));
            }
            return Ok(Some(found));
        }
        Kind::Symlink(target) => symlinkat(target.0.as_slice(), directory, &name),
        Kind::Fifo => mknodat(directory, &name, FileType::Fifo, Mode::RUSR, 0),
        Kind::Whiteout => mknodat(directory, &name, FileType::CharacterDevice, Mode::RUSR, 0),
        Kind::Link(first) => {
            let first = usize::try_from(*first).unwrap_or(usize::MAX);
            let mut from = Position::at_root(root)?;
            let other = from.directory_of(tree, first)?;
            linkat(other, tree.name(first)?, directory, &name, AtFlags::empty())
        }
    };
    match made {
        // The type is compared at the end.
        Ok(()) | Err(Errno::EXIST) => Ok(None),
        Err(errno) => Err(tree.failed("create", index, errno)),
    }
}

const CLOSED: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// Writes contents from `resume` on, and reports the bytes that are there.
///
/// # Errors
/// The stream is malformed, ends early, or has other files than the manifest; a file cannot be written.
pub fn write(
    root: &impl AsFd,
    entries: &[Entry],
    resume: Resume,
    from: &mut impl Read,
    progress: &mut impl FnMut(u64),
) -> Result<(), Fault> {
    let tree = Tree::new(entries);
    let mut writing = Writing {
        position: Position::at_root(root.as_fd())?,
        next: usize::try_from(resume.entry).unwrap_or(usize::MAX),
        file: None,
        tree,
    };
    let (mut done, mut reported) = (resume.done, resume.done);
    let mut buffer = Vec::new();
    loop {
        match frames::read(from, &mut buffer)? {
            Frame::File { entry, size } => {
                let offset = match entry == resume.entry {
                    true => resume.offset,
                    false => 0,
                };
                writing.begin(entry, size, offset)?;
            }
            Frame::Data { offset } => {
                writing.data(offset, &buffer)?;
                done += buffer.len() as u64;
                if done - reported >= PROGRESS_BYTES {
                    reported = done;
                    progress(done);
                }
            }
            Frame::FileEnd => writing.end_file()?,
            Frame::End => {
                writing.end()?;
                progress(done);
                return Ok(());
            }
            Frame::Error(message) => return Err(Fault::Refused(message)),
        }
    }
}

struct Writing<'a> {
    tree: Tree<'a>,
    position: Position,
    /// The first entry whose contents have not come.
    next: usize,
    file: Option<Open>,
}

struct Open {
    index: usize,
    file: File,
    at: u64,
    size: u64,
}

impl Writing<'_> {
    fn begin(&mut self, entry: u64, size: u64, offset: u64) -> Result<(), Fault> {
        let index = usize::try_from(entry).unwrap_or(usize::MAX);
        if self.file.is_some() || index < self.next {
            return Err(Fault::Malformed(format!("file {entry} comes too early")));
        }
        self.skip_to(index)?;
        let kind = self.tree.entries.get(index).map(|it| &it.kind);
        if !matches!(kind, Some(Kind::File { size: wanted, .. }) if *wanted == size) {
            return Err(Fault::Malformed(format!(
                "file {entry} is not what the manifest says"
            )));
        }
        let name = self.tree.name(index)?;
        let directory = self.position.directory_of(&self.tree, index)?;
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | CLOSED;
        let file = openat(directory, name, flags, Mode::empty());
        let file = file.map_err(|errno| self.tree.failed("open", index, errno))?;
        let cut = ftruncate(&file, offset);
        cut.map_err(|errno| self.tree.failed("shorten", index, errno))?;
        self.file = Some(Open {
            index,
            file: file.into(),
            at: offset,
            size,
        });
        Ok(())
    }

    /// Other entries than files have no contents.
    fn skip_to(&mut self, index: usize) -> Result<(), Fault> {
        let end = index.min(self.tree.entries.len());
        let skipped = self.tree.entries.get(self.next..end).unwrap_or(&[]);
        let left_out = skipped
            .iter()
            .position(|it| matches!(it.kind, Kind::File { .. }));
        match left_out {
            Some(first) => {
                let path = self.tree.path(self.next + first);
                Err(Fault::Malformed(format!(
                    "the contents of {path} are left out"
                )))
            }
            None => {
                self.next = end;
                Ok(())
            }
        }
    }

    fn data(&mut self, offset: u64, data: &[u8]) -> Result<(), Fault> {
        let Some(open) = &mut self.file else {
            return Err(Fault::Malformed("data of no file".to_owned()));
        };
        let end = offset.checked_add(data.len() as u64);
        let end = end.filter(|end| *end <= open.size && offset >= open.at && !data.is_empty());
        let Some(end) = end else {
            let path = self.tree.path(open.index);
            return Err(Fault::Malformed(format!("data outside of {path}")));
        };
        let written = open.file.write_all_at(data, offset);
        written.map_err(|error| self.tree.failed("write", open.index, error))?;
        open.at = end;
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), Fault> {
        let Some(open) = self.file.take() else {
            return Err(Fault::Malformed("the end of no file".to_owned()));
        };
        let extended = ftruncate(&open.file, open.size);
        extended.map_err(|errno| self.tree.failed("lengthen", open.index, errno))?;
        self.next = open.index + 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        match self.file {
            Some(_) => Err(Fault::Malformed("the last file has no end".to_owned())),
            None => self.skip_to(usize::MAX),
        }
    }
}

/// Gives every entry its owner, mode, extended attributes and time. Writing to files would change them again, so this comes last.
///
/// # Errors
/// The first entry that they cannot be given to.
pub fn finish(root: &impl AsFd, entries: &[Entry]) -> Result<(), Fault> {
    let tree = Tree::new(entries);
    let mut position = Position::at_root(root.as_fd())?;
    for (index, entry) in entries.iter().enumerate() {
        if matches!(entry.kind, Kind::Link(_)) {
            continue;
        }
        let name = tree.name(index)?;
        let directory = position.directory_of(&tree, index)?;
        let given = match opened_for_metadata(directory, &name, &entry.kind) {
            Ok(Some(file)) => give(&file, entry),
            Ok(None) => give_by_name(directory, &name, entry),
            Err(errno) => Err(errno.into()),
        };
        given.map_err(|error| tree.failed("set the metadata of", index, error))?;
    }
    Ok(())
}

/// Opens what can be opened without effects; links and whiteouts cannot.
pub(super) fn opened_for_metadata(
    directory: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    kind: &Kind,
) -> rustix::io::Result<Option<OwnedFd>> {
    let more = match kind {
        Kind::Directory => OFlags::DIRECTORY,
        Kind::File { .. } | Kind::Fifo => OFlags::NONBLOCK,
        Kind::Symlink(_) | Kind::Whiteout | Kind::Link(_) => return Ok(None),
    };
    openat(
        directory,
        name,
        OFlags::RDONLY | CLOSED | more,
        Mode::empty(),
    )
    .map(Some)
}

/// The owner first: changing it clears set-user-ID bits and file capabilities.
fn give(file: &OwnedFd, entry: &Entry) -> std::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fchown(file, Some(uid), Some(gid))?;
    fchmod(file, Mode::from_raw_mode(entry.mode))?;
    attributes::set(file, &entry.attributes)?;
    Ok(futimens(file, &times(entry))?)
}

fn give_by_name(
    directory: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    entry: &Entry,
) -> std::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let own = AtFlags::SYMLINK_NOFOLLOW;
    chownat(directory, name, Some(uid), Some(gid), own)?;
    if entry.kind == Kind::Whiteout && is_whiteout(directory, name)? {
        let mode = Mode::from_raw_mode(entry.mode);
        rustix::fs::chmodat(directory, name, mode, AtFlags::empty())?;
    }
    Ok(utimensat(directory, name, &times(entry), own)?)
}

/// Modes are set through links, which must not stand here.
fn is_whiteout(directory: BorrowedFd<'_>, name: &std::ffi::CStr) -> rustix::io::Result<bool> {
    let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice)
}

/// Reading the source changes times of access on some nodes: they are not copied.
fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: entry.modified.0,
            tv_nsec: entry.modified.1.into(),
        },
    }
}
