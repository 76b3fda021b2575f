//! The walk of the worker that has the volume. Names are sorted, links are not followed, other file systems are not entered: as long as
//! the volume is at rest, every walk gives the same entries with the same numbers.

use std::{
    collections::HashMap,
    ffi::CString,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, openat, readlinkat, seek,
        statat,
    },
    io::Errno,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    DEPTH_LIMIT, Fault, attributes,
    entry::{self, Entry, Kind, Text},
    frames::{self, DATA_BYTES, Frame},
};

/// Bytes of a file between two signs of life while digests are computed.
const SIGN_OF_LIFE_BYTES: u64 = 64 << 20;
/// Unit of digests. Data begins at multiples of it.
const DIGEST_BLOCK_BYTES: usize = 4096;

/// A line of the digests.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DigestLine {
    /// The digest of a regular file.
    File {
        /// Its number.
        entry: u64,
        /// Of its content.
        sha256: String,
    },
    /// A large file is being read.
    Reading,
    /// There are no more files.
    End,
    /// Why there is no more.
    Error(String),
}

/// Why a walk ended: a fault of the volume, or nobody reads any more.
enum Ended {
    Fault(Fault),
    Unread(io::Error),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Writes the manifest of the tree below a directory. Faults of the tree are in the manifest.
///
/// # Errors
/// It cannot be written.
pub fn write_manifest(root: &impl AsFd, to: &mut impl Write) -> io::Result<()> {
    let mut count = 0;
    let walked = walk(root.as_fd(), true, &mut |entry, _| {
        count += 1;
        entry::write(to, entry).map_err(Ended::Unread)
    });
    match walked {
        Ok(()) => entry::write_end(to, count)?,
        Err(Ended::Fault(fault)) => entry::write_error(to, &fault)?,
        Err(Ended::Unread(error)) => return Err(error),
    }
    to.flush()
}

/// Writes the contents of regular files: of that with number `from` after `offset` bytes, and of all after it.
///
/// # Errors
/// It cannot be written.
pub fn write_contents(
    root: &impl AsFd,
    from: u64,
    offset: u64,
    to: &mut impl Write,
) -> io::Result<()> {
    let mut buffer = vec![0; DATA_BYTES];
    let walked = walk_files(root.as_fd(), from, &mut |entry, size, file| {
        let offset = if entry == from { offset } else { 0 };
        let begin = Frame::File { entry, size };
        frames::write(to, &begin, &[]).map_err(Ended::Unread)?;
        send_data(file, offset, size, &mut buffer, to)?;
        frames::write(to, &Frame::FileEnd, &[]).map_err(Ended::Unread)
    });
    match walked {
        Ok(()) => frames::write(to, &Frame::End, &[])?,
        Err(Ended::Fault(fault)) => frames::write(to, &Frame::Error(fault.to_string()), &[])?,
        Err(Ended::Unread(error)) => return Err(error),
    }
    to.flush()
}

/// Writes the digests of all regular files.
///
/// # Errors
/// They cannot be written.
pub fn write_digests(root: &impl AsFd, to: &mut impl Write) -> io::Result<()> {
    let walked = walk_files(root.as_fd(), 0, &mut |entry, _, file| {
        let mut signs = || {
            entry::write_line(to, &DigestLine::Reading)?;
            to.flush()
        };
        let sha256 =
            digest(file, &mut signs).map_err(|error| Fault::io("read", number(entry), error))?;
        let line = DigestLine::File { entry, sha256 };
        entry::write_line(to, &line).map_err(Ended::Unread)
    });
    match walked {
        Ok(()) => entry::write_line(to, &DigestLine::End)?,
        Err(Ended::Fault(fault)) => {
            entry::write_line(to, &DigestLine::Error(fault.to_string()))?;
        }
        Err(Ended::Unread(error)) => return Err(error),
    }
    to.flush()
}

/// The digest of a file's content: of its size, and of every block that is not all zero, with its place. So holes cost nothing, and
/// may be elsewhere in a copy. `sign` is called now and then.
pub(super) fn digest(file: &File, sign: &mut impl FnMut() -> io::Result<()>) -> io::Result<String> {
    let size = file.metadata()?.len();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; DATA_BYTES];
    let (mut at, mut unsigned) = (0, 0);
    while at < size {
        at = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data - data % DIGEST_BLOCK_BYTES as u64,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let length = usize::try_from(size - at).unwrap_or(usize::MAX);
        let part = &mut buffer[..length.min(DATA_BYTES)];
        file.read_exact_at(part, at)?;
        for block in part.chunks(DIGEST_BLOCK_BYTES) {
            if block.iter().any(|byte| *byte != 0) {
                hash.update(at.to_le_bytes());
                hash.update(block);
            }
            at += block.len() as u64;
            unsigned += block.len() as u64;
        }
        if unsigned >= SIGN_OF_LIFE_BYTES {
            unsigned = 0;
            sign()?;
        }
    }
    hash.update(size.to_le_bytes());
    let digest = hash.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Sends a file's data from `offset` on; holes are left out.
fn send_data(
    file: &File,
    offset: u64,
    size: u64,
    buffer: &mut [u8],
    to: &mut impl Write,
) -> Result<(), Ended> {
    let failed = |error: io::Error| Fault::io("read", "a file".to_owned(), error);
    let mut at = offset;
    while at < size {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(failed(errno.into()).into()),
        };
        let hole = seek(file, SeekFrom::Hole(data)).map_err(|errno| failed(errno.into()))?;
        at = data;
        while at < hole.min(size) {
            let most = usize::try_from(hole.min(size) - at).unwrap_or(usize::MAX);
            let part = buffer.len().min(most);
            let read = match file.read_at(&mut buffer[..part], at) {
                // It is shorter than it was: the reader sees that it is not what the manifest says.
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error).into()),
            };
            let frame = Frame::Data { offset: at };
            frames::write(to, &frame, &buffer[..read]).map_err(Ended::Unread)?;
            at += read as u64;
        }
    }
    Ok(())
}

/// Visits the regular files from a number on, each with number and size.
fn walk_files(
    root: BorrowedFd<'_>,
    from: u64,
    visit: &mut impl FnMut(u64, u64, &File) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let mut number = 0;
    walk(root, false, &mut |entry, open| {
        let own = number;
        number += 1;
        match entry.kind {
            Kind::File { size, .. } if own >= from => visit(own, size, &open()?),
            _ => Ok(()),
        }
    })
}

type Open<'a> = &'a dyn Fn() -> Result<File, Fault>;

/// Visits every entry, the root first.
fn walk(
    root: BorrowedFd<'_>,
    with_attributes: bool,
    visit: &mut dyn FnMut(&Entry, Open<'_>) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let stat = fstat(root).map_err(|errno| Fault::io("examine", "the volume".to_owned(), errno))?;
    let mut walk = Walk {
        device: stat.st_dev,
        with_attributes,
        linked: HashMap::new(),
        count: 0,
        path: Vec::new(),
        visit,
    };
    let root = openat(root, c".", FLAGS | OFlags::DIRECTORY, Mode::empty());
    let root = root.map_err(|errno| walk.failed("open", errno))?;
    walk.entry(&stat, &[], Kind::Directory, || root.try_clone())?;
    walk.directory(&root)
}

/// Files are opened without waiting for writers of pipes, and reading them leaves no trace.
const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOATIME)
    .union(OFlags::CLOEXEC);

struct Walk<'a> {
    device: u64,
    with_attributes: bool,
    /// The first entry of files with several names, by inode.
    linked: HashMap<u64, u64>,
    count: u64,
    /// The names of the open directories.
    path: Vec<Vec<u8>>,
    visit: &'a mut dyn FnMut(&Entry, Open<'_>) -> Result<(), Ended>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &OwnedFd) -> Result<(), Ended> {
        for name in self.names(directory)? {
            self.path.push(name.to_bytes().to_owned());
            self.child(directory, &name)?;
            self.path.pop();
        }
        Ok(())
    }

    fn names(&self, directory: &OwnedFd) -> Result<Vec<CString>, Fault> {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(|errno| self.failed("list", errno))? {
            let entry = entry.map_err(|errno| self.failed("list", errno))?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn child(&mut self, directory: &OwnedFd, name: &CString) -> Result<(), Ended> {
        let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let found = found.map_err(|errno| self.failed("examine", errno))?;
        if found.st_dev != self.device {
            let path = self.text();
            return Err(
                Fault::Unsupported(format!("{path} is another file system: unmount it")).into(),
            );
        }
        if self.path.len() > DEPTH_LIMIT {
            let path = self.text();
            return Err(Fault::Unsupported(format!(
                "{path} is more than {DEPTH_LIMIT} directories deep"
            ))
            .into());
        }
        let Some(kind) = self.kind(directory, name, &found)? else {
            return Ok(());
        };
        let is_directory = kind == Kind::Directory;
        let flags = match is_directory {
            true => FLAGS | OFlags::DIRECTORY,
            false => FLAGS,
        };
        let open = || Ok(openat(directory, name, flags, Mode::empty())?);
        let own = name.to_bytes();
        self.entry(&found, own, kind, open)?;
        if is_directory {
            let below = open().map_err(|error: io::Error| self.failed("open", error))?;
            self.directory(&below)?;
        }
        Ok(())
    }

    /// What an entry is; none if it is left out.
    fn kind(
        &mut self,
        directory: &OwnedFd,
        name: &CString,
        found: &Stat,
    ) -> Result<Option<Kind>, Fault> {
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::Socket {
            // It means something to the program only that has it open.
            return Ok(None);
        }
        if kind != FileType::Directory && found.st_nlink > 1 {
            match self.linked.get(&found.st_ino) {
                Some(first) => return Ok(Some(Kind::Link(*first))),
                None => self.linked.insert(found.st_ino, self.count),
            };
        }
        Ok(Some(match kind {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => {
                let size = found.st_size.cast_unsigned();
                let stored = found
                    .st_blocks
                    .cast_unsigned()
                    .saturating_mul(512)
                    .min(size);
                Kind::File { size, stored }
            }
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new());
                let target = target.map_err(|errno| self.failed("read", errno))?;
                Kind::Symlink(Text(target.into_bytes()))
            }
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice if found.st_rdev == 0 => Kind::Whiteout,
            _ => {
                let path = self.text();
                return Err(Fault::Unsupported(format!(
                    "{path} is a device, which volumes cannot have: remove it"
                )));
            }
        }))
    }

    fn entry(
        &mut self,
        found: &Stat,
        name: &[u8],
        kind: Kind,
        open: impl Fn() -> io::Result<OwnedFd>,
    ) -> Result<(), Ended> {
        let path = self.text();
        let open = || {
            let opened = open().map(File::from);
            opened.map_err(|error| Fault::io("open", path.clone(), error))
        };
        let has_attributes = matches!(kind, Kind::Directory | Kind::File { .. } | Kind::Fifo);
        let attributes = match has_attributes && self.with_attributes {
            true => attributes::of(&open()?)
                .map_err(|error| Fault::io("read the attributes of", path.clone(), error))?,
            false => Vec::new(),
        };
        let entry = Entry {
            depth: self.path.len(),
            name: Text(name.to_owned()),
            kind,
            uid: found.st_uid,
            gid: found.st_gid,
            mode: found.st_mode & 0o7777,
            modified: (
                found.st_mtime,
                u32::try_from(found.st_mtime_nsec).unwrap_or(0),
            ),
            attributes,
        };
        self.count += 1;
        (self.visit)(&entry, &open)
    }

    fn failed(&self, what: &'static str, error: impl Into<io::Error>) -> Fault {
        Fault::io(what, self.text(), error)
    }

    /// The path of the present entry, for messages.
    fn text(&self) -> String {
        match self.path.is_empty() {
            true => "the volume".to_owned(),
            false => path_text(self.path.iter().map(Vec::as_slice)),
        }
    }
}

/// A path for messages.
pub(super) fn path_text<'a>(names: impl Iterator<Item = &'a [u8]>) -> String {
    let names = names.map(|name| String::from_utf8_lossy(name).escape_debug().to_string());
    names.collect::<Vec<_>>().join("/")
}

fn number(entry: u64) -> String {
    format!("entry {entry}")
}
