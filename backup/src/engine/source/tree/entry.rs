//! One entry of a tree: its attributes and its content.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rustic_core::{
    ErrorKind, ReadSourceOpen, RusticError, RusticResult,
    repofile::{Metadata, Node, NodeType},
};
use rustix::{
    fs::{FileType, Mode, OFlags, Stat, fstat, lgetxattr, llistxattr, openat, readlinkat},
    io::Errno,
};

use super::{Shared, is_regular};
use crate::engine::mode;

/// Maximum length of a list of extended attributes, and of a value; the kernel's.
const XATTR_BYTES: usize = 64 << 10;

/// What is known of the whole tree.
#[derive(Debug)]
pub(super) struct Facts {
    /// The directory on this host.
    pub(super) path: PathBuf,
    /// Its file system.
    pub(super) device: u64,
    /// Files that changed at this time (seconds) or later may change again without another time.
    pub(super) settled_before: i64,
    /// What is recorded as the time of those.
    pub(super) unsettled: Timestamp,
}

impl Shared {
    /// The node of an entry: everything but its content.
    pub(super) fn node(
        &self,
        directory: &OwnedFd,
        at: &OsStr,
        name: &OsStr,
        stat: &Stat,
        path: &Path,
    ) -> Option<Node> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => NodeType::Dir,
            FileType::Symlink => match readlinkat(directory, at, Vec::new()) {
                Ok(target) => NodeType::from_link(Path::new(OsStr::from_bytes(target.as_bytes()))),
                Err(error) => return self.lost("read the link", path, error),
            },
            FileType::BlockDevice => NodeType::Dev {
                device: stat.st_rdev,
            },
            FileType::CharacterDevice => NodeType::Chardev {
                device: stat.st_rdev,
            },
            FileType::Fifo => NodeType::Fifo,
            FileType::Socket => NodeType::Socket,
            _ => NodeType::File,
        };
        let is_directory = matches!(kind, NodeType::Dir);
        let has_links = !is_directory && stat.st_nlink > 1;
        #[allow(
            clippy::unnecessary_cast,
            reason = "the types differ between architectures"
        )]
        let links = stat.st_nlink as u64;
        let settled = stat.st_ctime < self.facts.settled_before;
        let metadata = Metadata {
            mode: Some(mode::to_go(stat.st_mode)),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            // The time of the last access is no part of the data, and would make every tree a new one.
            atime: time(stat.st_mtime, stat.st_mtime_nsec),
            // A file that changes twice within the resolution of its time looks the same to the next pass. A time that is
            // another one in each run has the file read again.
            ctime: match settled {
                true => time(stat.st_ctime, stat.st_ctime_nsec),
                false => Some(self.facts.unsettled),
            },
            uid: Some(stat.st_uid),
            gid: Some(stat.st_gid),
            // Names of the container's users are unknown here.
            user: None,
            group: None,
            inode: stat.st_ino,
            // Tells hard links apart in snapshots of several file systems. Loop devices have another number each time.
            device_id: u64::from(has_links),
            size: match is_regular(stat) {
                true => u64::try_from(stat.st_size).unwrap_or(0),
                false => 0,
            },
            links: match is_directory {
                true => 0,
                false => links,
            },
            ..self.extended_attributes(directory, at, path)?
        };
        Some(Node::new_node(name, kind, metadata))
    }

    /// The extended attributes, in metadata that is empty otherwise.
    fn extended_attributes(
        &self,
        directory: &OwnedFd,
        at: &OsStr,
        path: &Path,
    ) -> Option<Metadata> {
        let mut metadata = Metadata::default();
        let handle = handle(directory, at);
        let mut names = vec![0; XATTR_BYTES];
        match llistxattr(&handle, &mut names) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Some(metadata),
            Ok(length) => names.truncate(length),
            Err(error) => return self.lost("list the extended attributes of", path, error),
        }
        for name in names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            let Ok(name) = std::str::from_utf8(name) else {
                let path = self.shown(path);
                let warning = format!("{path} has an extended attribute whose name is not UTF-8");
                self.problems.warn(warning);
                continue;
            };
            let mut value = vec![0; XATTR_BYTES];
            match lgetxattr(&handle, name, &mut value) {
                Ok(length) => value.truncate(length),
                Err(Errno::NODATA) => continue,
                Err(error) => return self.lost("read the extended attributes of", path, error),
            }
            // The type has no public name.
            let attribute =
                format!(r#"{{"extended_attributes":[{{"name":{name:?},"value":null}}]}}"#);
            let Ok(mut one) = serde_json::from_str::<Metadata>(&attribute) else {
                continue;
            };
            for attribute in &mut one.extended_attributes {
                attribute.name = name.to_owned();
                attribute.value = Some(value.clone());
            }
            metadata
                .extended_attributes
                .append(&mut one.extended_attributes);
        }
        Some(metadata)
    }
}

/// The path of an entry by its directory's descriptor. Its last component is followed by nothing that uses it.
pub(in crate::engine) fn handle(directory: &OwnedFd, name: &OsStr) -> PathBuf {
    let directory = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Path::new(&directory).join(name)
}

fn time(seconds: i64, nanoseconds: impl TryInto<i32>) -> Option<Timestamp> {
    Timestamp::new(seconds, nanoseconds.try_into().ok()?).ok()
}

/// Opens the content of an entry.
#[derive(Debug)]
pub(in crate::engine) struct Opener {
    directory: Arc<OwnedFd>,
    name: OsString,
    inode: u64,
    size: u64,
    path: PathBuf,
    shared: Arc<Shared>,
}

impl Opener {
    pub(super) fn new(
        directory: Arc<OwnedFd>,
        name: OsString,
        stat: &Stat,
        path: PathBuf,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            directory,
            name,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            path,
            shared,
        }
    }

    fn left_out(&self, what: &str) -> Box<RusticError> {
        self.shared.problems.leave_out();
        RusticError::new(
            ErrorKind::InputOutput,
            format!("a file is left out: {what}"),
        )
    }
}

impl ReadSourceOpen for Opener {
    type Reader = Reader;

    fn open(self) -> RusticResult<Reader> {
        // Without waiting, should the file have become a pipe meanwhile.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(&self.directory, &self.name, flags, Mode::empty());
        let opened = opened.and_then(|file| fstat(&file).map(|stat| (file, stat)));
        let file = match opened {
            Ok((file, stat)) if stat.st_ino == self.inode && is_regular(&stat) => file,
            // Another file has the name now.
            Ok(_) => {
                self.shared.lost::<()>("open", &self.path, Errno::NOENT);
                return Err(self.left_out("it is another one"));
            }
            Err(error) => {
                self.shared.lost::<()>("open", &self.path, error);
                return Err(self.left_out("it cannot be opened"));
            }
        };
        Ok(Reader {
            file: file.into(),
            left: self.size,
            opener: self,
        })
    }
}

/// Reads exactly as many bytes as the file had when its attributes were read.
#[derive(Debug)]
pub(in crate::engine) struct Reader {
    file: File,
    left: u64,
    opener: Opener,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let shared = &self.opener.shared;
        if let Err(failure) = shared.caller.still_there() {
            return Err(io::Error::other(failure));
        }
        let length = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        let read = match self.file.read(&mut buffer[..length]) {
            Ok(0) => {
                // It was truncated. The size is in the snapshot already, and restic relies on it.
                let path = shared.shown(&self.opener.path);
                let warning = format!(
                    "{path} became shorter while it was read: zeros take the place of {} bytes",
                    self.left
                );
                shared.problems.warn(warning);
                self.file = File::open("/dev/zero")?;
                return self.read(buffer);
            }
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let path = shared.shown(&self.opener.path);
                shared
                    .problems
                    .unreadable(format!("cannot read {path}: {error}"));
                shared.problems.leave_out();
                return Err(error);
            }
        };
        self.left -= read as u64;
        shared
            .reporter
            .advance(u64::from(self.left == 0), read as u64);
        Ok(read)
    }
}
