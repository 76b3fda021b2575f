//! Files of the kernel's own, and nothing that somebody else has put in their place.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, open, openat2};

/// The number of a procfs's root, which nothing else in one has.
const ROOT: u64 = 1;

/// The host's procfs, and no look-alike of it.
pub(crate) struct Proc(OwnedFd);

impl Proc {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = open("/proc", flags, Mode::empty())?;
        let is_procfs = fstatfs(&proc)?.f_type == PROC_SUPER_MAGIC;
        if is_procfs && fstat(&proc)?.st_ino == ROOT {
            return Ok(Self(proc));
        }
        Err(io::Error::other("it is no procfs"))
    }

    /// Nothing is mounted over what this opens, and no link leads away from here.
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
    fn the_hosts_procfs_is_known_from_what_looks_like_it() {
        let proc = Proc::open().unwrap();
        proc.open_to_write(Path::new("thread-self/comm")).unwrap();
        let up = proc.open_to_write(Path::new("../etc/hostname"));
        assert_eq!(up.unwrap_err().raw_os_error(), Some(libc::EXDEV));
        let magic = proc.open_to_write(Path::new("self/exe"));
        assert_eq!(magic.unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }
}
