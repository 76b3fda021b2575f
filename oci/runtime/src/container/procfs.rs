//! Access to the host's procfs, verified to be procfs.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, open, openat2};

/// Inode of a procfs root, which no other file in it has.
const ROOT: u64 = 1;

/// The host's procfs.
pub(crate) struct Proc(OwnedFd);

impl Proc {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = open("/proc", flags, Mode::empty())?;
        let is_procfs = fstatfs(&proc)?.f_type == PROC_SUPER_MAGIC;
        if is_procfs && fstat(&proc)?.st_ino == ROOT {
            return Ok(Self(proc));
        }
        Err(io::Error::other("not a procfs"))
    }

    /// Opens a file for writing. Refuses files that something is mounted over, and links that leave procfs.
    pub(crate) fn open_to_write(&self, path: &Path) -> io::Result<OwnedFd> {
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        Ok(openat2(&self.0, path, flags, Mode::empty(), within)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_procfs_is_accepted() {
        let proc = Proc::open().unwrap();
        proc.open_to_write(Path::new("thread-self/comm")).unwrap();
        let up = proc.open_to_write(Path::new("../etc/hostname"));
        assert_eq!(up.unwrap_err().raw_os_error(), Some(libc::EXDEV));
        let magic = proc.open_to_write(Path::new("self/exe"));
        assert_eq!(magic.unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }
}
