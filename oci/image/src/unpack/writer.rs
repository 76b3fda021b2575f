//! Writes a layer's entries into a directory, in the format of overlayfs's lower directories.
//!
//! Later entries of a layer replace earlier ones. Nothing is written through a link: each file is created in a directory
//! that is known to be within the layer.

use std::os::fd::{AsFd, BorrowedFd};

use flate2::Crc;
use oci_spec::image::Digest;
use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Uid, XattrFlags, chmodat, chownat,
        fchmod, fchown, fgetxattr, fsetxattr, fstat, ftruncate, futimens, linkat, makedev, mkdirat,
        mknodat, openat, seek, statat, symlinkat, utimensat,
    },
    io::{Errno, Result as SysResult},
};
use tar::EntryType;

use super::directories::{Directories, set_mark, set_opaque, times};
use crate::{
    error::{Error, entry_error},
    layer::{Change, Data, Entry, Sink, mark::RootMark, path::split, xattrs},
    seal::{KnownSums, file_sum},
    tarball::header::{Member, Time},
    zeros::{HOLE_BYTES, is_zero, runs},
};

const BUFFER_BYTES: usize = 128 << 10;
/// Attributes up to this size fit on every file system that has attributes.
const SMALL_XATTR_BYTES: usize = 900;
/// The set-group-ID bit: new files in such a directory inherit its group.
const SET_GROUP: u32 = 0o2000;
/// Mode of a new file until its owner is set.
const UNFINISHED: Mode = Mode::from_raw_mode(0o600);

/// Writes a layer's entries below a directory.
#[derive(Debug)]
pub(crate) struct LayerWriter<'a> {
    root: BorrowedFd<'a>,
    directories: Directories<'a>,
    layer: &'a Digest,
    /// Whether owners and devices can be created; otherwise every file belongs to the user.
    is_root: bool,
    /// The metadata of a new file without any further system call.
    defaults: NewFileDefaults,
    buffer: Vec<u8>,
    /// The mode that the layer sets for its root.
    root_mode: u32,
    root_mtime: Time,
    is_root_implied: bool,
    is_root_opaque: bool,
    known_sums: KnownSums,
    crc: Crc,
}

impl Sink for LayerWriter<'_> {
    fn entry(&mut self, entry: &Entry, data: &mut Data<'_>) -> Result<(), Error> {
        let path = &entry.path;
        let made = match &entry.change {
            Change::Make(member) if member.kind == EntryType::Regular => {
                return self.file(path, member, data);
            }
            Change::Make(member) => self.make(path, member),
            Change::Whiteout => self.whiteout(path),
            Change::Opaque => self.set_opaque_at(path),
        };
        made.map_err(|errno| self.failed(path, errno))
    }
}

impl<'a> LayerWriter<'a> {
    /// Writes the layer with this diff-id into an empty directory; `umask` is this process's. `most_implied` limits the
    /// directories without an entry of their own.
    pub(crate) fn new(
        root: BorrowedFd<'a>,
        layer: &'a Digest,
        umask: u32,
        most_implied: u64,
    ) -> Result<Self, Error> {
        let defaults = NewFileDefaults::in_directory(root, umask)
            .map_err(|errno| entry_error(layer, b"", errno))?;
        Ok(Self {
            root,
            directories: Directories::new(root, most_implied),
            layer,
            is_root: rustix::process::geteuid().is_root(),
            defaults,
            buffer: vec![0; BUFFER_BYTES],
            root_mode: 0o755,
            root_mtime: Time::default(),
            is_root_implied: true,
            is_root_opaque: false,
            known_sums: KnownSums::new(),
            crc: Crc::new(),
        })
    }

    /// Sets the directories' times; returns the checksums of the files.
    pub(crate) fn finish(mut self) -> Result<KnownSums, Error> {
        let mark = RootMark {
            is_implied: self.is_root_implied,
            is_opaque: self.is_root_opaque,
            implied_directories: self.directories.implied(),
        };
        let finished = self.directories.close().and_then(|()| {
            set_mark(self.root, mark.to_string().as_bytes())?;
            fchmod(self.root, Mode::from_raw_mode(self.root_mode))?;
            futimens(self.root, &times(self.root_mtime))
        });
        finished.map_err(|errno| self.failed(b"", errno))?;
        Ok(self.known_sums)
    }

    fn file(&mut self, path: &[u8], member: &Member, data: &mut Data<'_>) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let uses_defaults = self.defaults.satisfy(member, self.is_root);
        let mode = match uses_defaults {
            true => Mode::from_raw_mode(member.mode),
            false => UNFINISHED,
        };
        let create = |parent: BorrowedFd<'_>, name: &[u8]| openat(parent, name, flags, mode);
        let file = self
            .replace(path, create)
            .map_err(|errno| self.failed(path, errno))?;
        self.crc.reset();
        self.content(file.as_fd(), path, member, data)?;
        let finished = match uses_defaults {
            true => Ok(()),
            false => self.finish_open(file.as_fd(), member),
        };
        let stat = finished
            .and_then(|()| futimens(&file, &times(member.mtime)))
            .and_then(|()| fstat(&file))
            .map_err(|errno| self.failed(path, errno))?;
        self.known_sums
            .insert(stat.st_ino, file_sum(&stat, self.crc.sum()));
        Ok(())
    }

    fn content(
        &mut self,
        file: BorrowedFd<'_>,
        path: &[u8],
        member: &Member,
        data: &mut Data<'_>,
    ) -> Result<(), Error> {
        let Some(sparse) = &member.sparse else {
            if self.copy(file, path, member.size, data)? {
                ftruncate(file, member.size).map_err(|errno| self.failed(path, errno))?;
            }
            return Ok(());
        };
        let mut position = 0;
        for extent in &sparse.extents {
            self.skip(extent.offset - position);
            position = extent.offset + extent.bytes;
            seek(file, SeekFrom::Start(extent.offset)).map_err(|errno| self.failed(path, errno))?;
            self.copy(file, path, extent.bytes, data)?;
        }
        self.skip(sparse.bytes - position);
        ftruncate(file, sparse.bytes).map_err(|errno| self.failed(path, errno))
    }

    /// Adds a hole's zeros to the checksum.
    fn skip(&mut self, mut bytes: u64) {
        self.buffer.fill(0);
        while bytes > 0 {
            let piece = bytes.min(BUFFER_BYTES as u64);
            self.crc.update(&self.buffer[..piece as usize]);
            bytes -= piece;
        }
    }

    /// Copies data to the file's current position. Blocks of zeros become holes; the caller sets the file's size.
    fn copy(
        &mut self,
        file: BorrowedFd<'_>,
        path: &[u8],
        mut left: u64,
        data: &mut Data<'_>,
    ) -> Result<bool, Error> {
        let mut ends_with_hole = false;
        while left > 0 {
            let wanted = usize::try_from(left).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
            let mut filled = 0;
            while filled < wanted {
                match data(&mut self.buffer[filled..wanted])? {
                    0 => break,
                    read => filled += read,
                }
            }
            if filled == 0 {
                break;
            }
            self.crc.update(&self.buffer[..filled]);
            ends_with_hole = write_sparse(file, &self.buffer[..filled])
                .map_err(|errno| self.failed(path, errno))?;
            left -= filled as u64;
        }
        Ok(ends_with_hole)
    }

    fn make(&mut self, path: &[u8], member: &Member) -> SysResult<()> {
        match member.kind {
            EntryType::Directory => self.directory(path, member),
            EntryType::Link => self.hard_link(path, &member.link),
            EntryType::Symlink => {
                self.replace(path, |parent, name| {
                    symlinkat(&member.link[..], parent, name)
                })?;
                self.finish_closed(path, member, false)
            }
            _ => self.special(path, member),
        }
    }

    fn directory(&mut self, path: &[u8], member: &Member) -> SysResult<()> {
        self.defaults.note_directory(member);
        if path.is_empty() {
            (self.root_mode, self.root_mtime) = (member.mode, member.mtime);
            self.is_root_implied = false;
            self.own(self.root, member)?;
            return set_xattrs(self.root, member);
        }
        let (parent, name) = split(path);
        let made = mkdirat(
            self.directories.get(parent)?,
            name,
            Mode::from_raw_mode(0o700),
        );
        match made {
            Err(Errno::EXIST) if !self.is_directory(path)? => {
                self.directories.remove(path)?;
                // The removed entry hid the lower layers' directory of this name; this directory must hide it too.
                self.set_opaque_at(path)?;
                set_mark(self.directories.get(path)?, b"")?;
            }
            // It may have been implied.
            Err(Errno::EXIST) => set_mark(self.directories.get(path)?, b"")?,
            Ok(()) => {}
            Err(error) => return Err(error),
        }
        self.directories.set_mtime(path, member.mtime)?;
        let is_root = self.is_root;
        let directory = self.directories.get(path)?;
        finish_open(directory, member, is_root)
    }

    /// The link's target is looked up in this layer, without following symbolic links.
    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> SysResult<()> {
        let (target_parent, target_name) = split(target);
        let target_parent = self.directories.get_existing(target_parent)?;
        self.replace(path, |parent, name| {
            match linkat(&target_parent, target_name, parent, name, AtFlags::empty()) {
                Err(Errno::PERM) => Err(Errno::ISDIR),
                linked => linked,
            }
        })
    }

    fn special(&mut self, path: &[u8], member: &Member) -> SysResult<()> {
        let (kind, device) = match member.kind {
            EntryType::Char => (FileType::CharacterDevice, member.device),
            EntryType::Block => (FileType::BlockDevice, member.device),
            _ => (FileType::Fifo, (0, 0)),
        };
        if kind != FileType::Fifo && !self.is_root {
            tracing::warn!(path = %member.shown(), "only root can create devices: skipped");
            return Ok(());
        }
        let device = makedev(device.0, device.1);
        self.replace(path, |parent, name| {
            mknodat(parent, name, kind, UNFINISHED, device)
        })?;
        self.finish_closed(path, member, true)
    }

    /// A character device 0:0 is overlayfs's whiteout. An entry of this layer with that name stays, since a whiteout
    /// applies to the lower layers.
    fn whiteout(&mut self, path: &[u8]) -> SysResult<()> {
        let (parent, name) = split(path);
        if self.directories.is_hidden(parent)? {
            return Ok(());
        }
        let parent = self.directories.get(parent)?;
        match mknodat(
            parent,
            name,
            FileType::CharacterDevice,
            Mode::empty(),
            makedev(0, 0),
        ) {
            Err(Errno::EXIST) if self.is_directory(path)? => self.set_opaque_at(path),
            Err(Errno::EXIST) => Ok(()),
            made => made,
        }
    }

    fn set_opaque_at(&mut self, path: &[u8]) -> SysResult<()> {
        if path.is_empty() {
            // Overlayfs always merges the roots: the lower layers are left out instead.
            self.is_root_opaque = true;
            return Ok(());
        }
        set_opaque(self.directories.get(path)?)
    }

    /// Creates an entry at `path`, in place of an earlier one of this layer.
    fn replace<T>(
        &mut self,
        path: &[u8],
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> SysResult<T>,
    ) -> SysResult<T> {
        let (parent, name) = split(path);
        match make(self.directories.get(parent)?, name) {
            Err(Errno::EXIST) => {
                self.directories.remove(path)?;
                make(self.directories.get(parent)?, name)
            }
            made => made,
        }
    }

    fn is_directory(&mut self, path: &[u8]) -> SysResult<bool> {
        let (parent, name) = split(path);
        let stat: Stat = statat(
            self.directories.get(parent)?,
            name,
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    fn finish_open(&self, file: BorrowedFd<'_>, member: &Member) -> SysResult<()> {
        finish_open(file, member, self.is_root)
    }

    fn own(&self, directory: BorrowedFd<'_>, member: &Member) -> SysResult<()> {
        if self.is_root {
            fchown(directory, owner(member).0, owner(member).1)
        } else {
            Ok(())
        }
    }

    /// Sets the metadata of what must not be opened: links have no mode, and opening a device may have side effects.
    fn finish_closed(&mut self, path: &[u8], member: &Member, has_mode: bool) -> SysResult<()> {
        let is_root = self.is_root;
        let (parent, name) = split(path);
        let parent = self.directories.get(parent)?;
        let (uid, gid) = owner(member);
        if is_root {
            chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if has_mode {
            chmodat(
                parent,
                name,
                Mode::from_raw_mode(member.mode),
                AtFlags::empty(),
            )?;
        }
        utimensat(
            parent,
            name,
            &times(member.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    fn failed(&self, path: &[u8], errno: Errno) -> Error {
        entry_error(self.layer, path, errno)
    }
}

/// The metadata of a new file. Most files of most images need nothing else, which saves system calls.
#[derive(Debug)]
struct NewFileDefaults {
    owner: (u32, u32),
    umask: u32,
    /// Whether new files may inherit another group from their directory.
    group_may_differ: bool,
}

impl NewFileDefaults {
    /// The defaults in a directory that this process has just created.
    fn in_directory(directory: BorrowedFd<'_>, umask: u32) -> SysResult<Self> {
        let owner = (rustix::process::geteuid(), rustix::process::getegid());
        let owner = (owner.0.as_raw(), owner.1.as_raw());
        let stat = fstat(directory)?;
        let sets_group = stat.st_mode & SET_GROUP != 0;
        // A default ACL replaces the umask: then nothing is known.
        let has_acl = fgetxattr(directory, "system.posix_acl_default", &mut [0; 0]).is_ok();
        Ok(Self {
            owner,
            umask: if has_acl { 0o777 } else { umask },
            group_may_differ: sets_group || (stat.st_uid, stat.st_gid) != owner,
        })
    }

    /// After a directory with the set-group-ID bit or another group, which is rare, every file's group is set explicitly.
    fn note_directory(&mut self, directory: &Member) {
        self.group_may_differ |= directory.mode & SET_GROUP != 0 || directory.gid != self.owner.1;
    }

    fn satisfy(&self, member: &Member, with_owner: bool) -> bool {
        let has_owner =
            !with_owner || (!self.group_may_differ && (member.uid, member.gid) == self.owner);
        has_owner && member.mode & (self.umask | !0o777) == 0 && member.xattrs.is_empty()
    }
}

/// This process's umask; 0777 if it cannot be read.
pub(crate) fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask
        .and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok())
        .unwrap_or(0o777)
}

/// Sets the owner before mode and attributes: changing it clears set-uid bits and capabilities.
fn finish_open(file: BorrowedFd<'_>, member: &Member, is_root: bool) -> SysResult<()> {
    if is_root {
        let (uid, gid) = owner(member);
        fchown(file, uid, gid)?;
    }
    fchmod(file, Mode::from_raw_mode(member.mode))?;
    set_xattrs(file, member)
}

fn set_xattrs(file: BorrowedFd<'_>, member: &Member) -> SysResult<()> {
    let kept = xattrs::kept(&member.xattrs)?;
    let bytes: usize = kept
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    for (name, value) in kept {
        match set_xattr(file, name, value) {
            // ext4 returns this for attributes that exceed a block together, however much space is free.
            Err(Errno::NOSPC) if bytes > SMALL_XATTR_BYTES => return Err(Errno::TOOBIG),
            set => set?,
        }
    }
    Ok(())
}

fn set_xattr(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> SysResult<()> {
    match fsetxattr(file, name, value, XattrFlags::empty()) {
        // Some file systems do not support user attributes. Capabilities are required.
        Err(Errno::NOTSUP) if name.starts_with("user.") => {
            tracing::warn!(
                name,
                "the file system does not support this attribute: skipped"
            );
            Ok(())
        }
        set => set,
    }
}

fn owner(member: &Member) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(member.uid)),
        Some(Gid::from_raw(member.gid)),
    )
}

/// Writes at the file's position, with holes in place of blocks of zeros. Returns whether it ended with a hole.
fn write_sparse(file: BorrowedFd<'_>, bytes: &[u8]) -> SysResult<bool> {
    let mut ends_with_hole = false;
    for run in runs(bytes) {
        ends_with_hole = is_zero(&run[..run.len().min(HOLE_BYTES)]);
        match ends_with_hole {
            true => drop(seek(file, SeekFrom::Current(run.len() as i64))?),
            false => write_all(file, run)?,
        }
    }
    Ok(ends_with_hole)
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> SysResult<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
