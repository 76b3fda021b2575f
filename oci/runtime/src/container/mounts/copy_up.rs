//! Copies a directory into the file system that will cover it (`tmpcopyup`). The directory belongs to an untrusted
//! image, so it is walked by descriptors without following symbolic links.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
        chownat, fgetxattr, flistxattr, fsetxattr, mkdirat, mknodat, openat, readlinkat, statat,
        symlinkat, utimensat,
    },
    io::Errno,
};

/// Maximum depth; each level takes two descriptors.
const DEPTH_LIMIT: usize = 64;

/// Maximum size of an extended attribute and of the list of names (xattr(7)).
const ATTRIBUTE_LIMIT_BYTES: usize = 64 << 10;

/// Copies the content of `from` with owners, modes, times and extended attributes.
pub(crate) fn copy_up(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    copy_directory(from.as_fd(), to.as_fd(), DEPTH_LIMIT)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth == 0 {
        let message = format!("directories are more than {DEPTH_LIMIT} deep");
        return Err(io::Error::other(message));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            let pair = Pair { from, to, name };
            pair.copy(depth)
                .map_err(|error| io::Error::new(error.kind(), format!("{name:?}: {error}")))?;
        }
    }
    Ok(())
}

/// One entry, in the source and target directory.
struct Pair<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    name: &'a CStr,
}

impl Pair<'_> {
    fn copy(&self, depth: usize) -> io::Result<()> {
        let found = statat(self.from, self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(found.st_mode);
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                mkdirat(self.to, self.name, Mode::RWXU)?;
                let directory = OFlags::RDONLY | OFlags::DIRECTORY;
                let (from, to) = (self.source(directory)?, self.target(directory)?);
                copy_directory(from.as_fd(), to.as_fd(), depth - 1)?;
                self.give_owner(&found, mode)?;
                copy_attributes(&from, &to)?;
            }
            FileType::RegularFile => {
                let made = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let from = File::from(self.source(OFlags::RDONLY | OFlags::NONBLOCK)?);
                let to = File::from(self.target(made)?);
                io::copy(&mut &from, &mut &to)?;
                // Writing to a file and changing its owner drop file capabilities, so they come last.
                self.give_owner(&found, mode)?;
                copy_attributes(&from, &to)?;
            }
            FileType::Symlink => {
                let target = readlinkat(self.from, self.name, Vec::new())?;
                symlinkat(target, self.to, self.name)?;
                self.give_owner(&found, mode)?;
            }
            kind => {
                mknodat(self.to, self.name, kind, mode, found.st_rdev)?;
                self.give_owner(&found, mode)?;
            }
        }
        self.set_times(&found)
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
    fn give_owner(&self, like: &Stat, mode: Mode) -> io::Result<()> {
        let owner = Some(Uid::from_raw(like.st_uid));
        let group = Some(Gid::from_raw(like.st_gid));
        chownat(self.to, self.name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
        if !FileType::from_raw_mode(like.st_mode).is_symlink() {
            rustix::fs::chmodat(self.to, self.name, mode, AtFlags::empty())?;
        }
        Ok(())
    }

    fn set_times(&self, like: &Stat) -> io::Result<()> {
        let times = Timestamps {
            last_access: time(like.st_atime, like.st_atime_nsec),
            last_modification: time(like.st_mtime, like.st_mtime_nsec),
        };
        Ok(utimensat(
            self.to,
            self.name,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
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
