//! Copies a directory of an untrusted image: into the file system that will cover it (`tmpcopyup`), or into a volume. Directories
//! are walked by descriptors, and no symbolic link is followed.

use std::{
    collections::HashMap,
    ffi::{CStr, OsStr},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
        chownat, fgetxattr, flistxattr, fsetxattr, fstat, linkat, mkdirat, mknodat, openat,
        readlinkat, statat, symlinkat, utimensat,
    },
    io::Errno,
};

/// Maximum depth; each level takes two descriptors.
const DEPTH_LIMIT: usize = 256;

/// Maximum size of an extended attribute and of the list of names (xattr(7)).
const ATTRIBUTE_LIMIT_BYTES: usize = 64 << 10;

/// Prefixes of the extended attributes that belong to the files. Others belong to the file system or to the host's policy, such as
/// the label of SELinux, by which the container could not write to the copy.
const ATTRIBUTES: [&[u8]; 3] = [b"user.", b"system.posix_acl_", b"security.capability"];

/// Copies the content of a directory with owners, modes, times, links and extended attributes. The target is empty.
///
/// # Errors
/// The first entry that cannot be copied, by its name; those before it stay.
pub fn copy_content(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    let mut copy = Copy {
        to_root: to.as_fd(),
        path: PathBuf::new(),
        linked: HashMap::new(),
    };
    copy.directory(from.as_fd(), to.as_fd(), DEPTH_LIMIT)
}

/// Gives a directory, opened for reading, the owner, mode, times and extended attributes of another.
///
/// # Errors
/// The first of them that cannot be set.
pub fn copy_metadata(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    let like = fstat(from)?;
    let (owner, group) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
    rustix::fs::fchown(to, Some(owner), Some(group))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(like.st_mode))?;
    copy_attributes(from, to)?;
    Ok(rustix::fs::futimens(to, &times(&like))?)
}

/// A copy in progress.
struct Copy<'a> {
    to_root: BorrowedFd<'a>,
    /// Of the present directory, from the root.
    path: PathBuf,
    /// Where files with several names were copied to, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl Copy<'_> {
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        depth: usize,
    ) -> io::Result<()> {
        if depth == 0 {
            let message = format!("directories are more than {DEPTH_LIMIT} deep");
            return Err(io::Error::other(message));
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                let pair = Pair { from, to, name };
                self.path.push(OsStr::from_bytes(name.to_bytes()));
                let copied = self.entry(&pair, depth);
                self.path.pop();
                copied
                    .map_err(|error| io::Error::new(error.kind(), format!("{name:?}: {error}")))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, pair: &Pair<'_>, depth: usize) -> io::Result<()> {
        let found = statat(pair.from, pair.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::CharacterDevice && found.st_rdev == 0 {
            // An overlay's mark of a removed file.
            return Ok(());
        }
        if kind != FileType::Directory && found.st_nlink > 1 {
            let file = (found.st_dev, found.st_ino);
            if let Some(first) = self.linked.get(&file) {
                let flags = AtFlags::empty();
                return Ok(linkat(self.to_root, first, pair.to, pair.name, flags)?);
            }
            self.linked.insert(file, self.path.clone());
        }
        if kind == FileType::Directory {
            mkdirat(pair.to, pair.name, Mode::RWXU)?;
            let directory = OFlags::RDONLY | OFlags::DIRECTORY;
            let (from, to) = (pair.source(directory)?, pair.target(directory)?);
            self.directory(from.as_fd(), to.as_fd(), depth - 1)?;
            pair.give_owner(&found)?;
            copy_attributes(&from, &to)?;
        } else {
            pair.copy_file(kind, &found)?;
        }
        pair.set_times(&found)
    }
}

/// One entry, in the source and target directory.
struct Pair<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    name: &'a CStr,
}

impl Pair<'_> {
    /// Copies anything but a directory.
    fn copy_file(&self, kind: FileType, found: &Stat) -> io::Result<()> {
        match kind {
            FileType::RegularFile => {
                let made = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let from = File::from(self.source(OFlags::RDONLY | OFlags::NONBLOCK)?);
                let to = File::from(self.target(made)?);
                io::copy(&mut &from, &mut &to)?;
                // Writing to a file and changing its owner drop file capabilities, so they come last.
                self.give_owner(found)?;
                copy_attributes(&from, &to)
            }
            FileType::Symlink => {
                let target = readlinkat(self.from, self.name, Vec::new())?;
                symlinkat(target, self.to, self.name)?;
                self.give_owner(found)
            }
            kind => {
                let mode = Mode::from_raw_mode(found.st_mode);
                mknodat(self.to, self.name, kind, mode, found.st_rdev)?;
                self.give_owner(found)
            }
        }
    }

    fn source(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(self.from, self.name, flags, Mode::empty())?)
    }

    fn target(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(self.to, self.name, flags, Mode::RUSR | Mode::WUSR)?)
    }

    /// The owner first: changing it clears set-user-ID bits.
    fn give_owner(&self, like: &Stat) -> io::Result<()> {
        let owner = Some(Uid::from_raw(like.st_uid));
        let group = Some(Gid::from_raw(like.st_gid));
        chownat(self.to, self.name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
        if !FileType::from_raw_mode(like.st_mode).is_symlink() {
            let mode = Mode::from_raw_mode(like.st_mode);
            rustix::fs::chmodat(self.to, self.name, mode, AtFlags::empty())?;
        }
        Ok(())
    }

    fn set_times(&self, like: &Stat) -> io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(utimensat(self.to, self.name, &times(like), flags)?)
    }
}

fn times(like: &Stat) -> Timestamps {
    Timestamps {
        last_access: time(like.st_atime, like.st_atime_nsec),
        last_modification: time(like.st_mtime, like.st_mtime_nsec),
    }
}

fn time(seconds: i64, nanoseconds: u64) -> Timespec {
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.cast_signed(),
    }
}

/// Skips attributes that the new file system does not support: tmpfs has no user attributes before Linux 6.6.
fn copy_attributes(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    let mut names = vec![0; ATTRIBUTE_LIMIT_BYTES];
    let length = match flistxattr(from, &mut names) {
        Err(Errno::NOTSUP) => return Ok(()),
        other => other?,
    };
    let mut value = Vec::new();
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let mut prefixes = ATTRIBUTES.iter();
        if !prefixes.any(|prefix| name.to_bytes().starts_with(prefix)) {
            continue;
        }
        value.resize(ATTRIBUTE_LIMIT_BYTES, 0);
        let length = fgetxattr(from, name, &mut value)?;
        match fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Err(Errno::NOTSUP) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
