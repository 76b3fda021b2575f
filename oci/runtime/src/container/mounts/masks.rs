//! Masked and read-only paths (OCI runtime specification, "Masked Paths", "Readonly Paths").

use std::{io, os::fd::OwnedFd, path::Path};

use super::{MountedFileSystems, attach, copy, detached, links};
use crate::{
    channel::{Failure, Step},
    container::{
        labels,
        resolve::{Root, Symlinks, open_below},
    },
    sys::{self, MountAttributes},
};

/// Masks paths and makes paths read-only.
pub(crate) struct Masks<'a> {
    pub(crate) root: &'a Root,
    pub(crate) mounted: &'a MountedFileSystems,
    /// As [`super::Mounter::label`].
    pub(crate) label: &'a str,
}

impl Masks<'_> {
    /// Masks each path that exists, with an empty directory or `/dev/null`.
    pub(crate) fn mask(&self, paths: &[String]) -> Result<(), Failure> {
        let mut empty = EmptyDirectory {
            label: self.label,
            made: None,
        };
        let mut null = None;
        for path in paths {
            let step = format!("masking {path}");
            let Some(target) = self.existing(Path::new(path)).step(&step)? else {
                continue;
            };
            let mode = rustix::fs::fstat(&target).step(&step)?.st_mode;
            let cover = if rustix::fs::FileType::from_raw_mode(mode).is_dir() {
                empty.directory()
            } else {
                self.null(&mut null)
            };
            attach(&cover.step(&step)?, &target).step(&step)?;
        }
        Ok(())
    }

    /// Makes each path that exists read-only, with everything below it.
    pub(crate) fn make_read_only(&self, paths: &[String]) -> Result<(), Failure> {
        for path in paths {
            let step = format!("making {path} read-only");
            let Some(target) = self.existing(Path::new(path)).step(&step)? else {
                continue;
            };
            let tree = copy(&target, true).step(&step)?;
            let change = MountAttributes {
                set: libc::MOUNT_ATTR_RDONLY,
                recursive: true,
                ..Default::default()
            };
            sys::set_mount_attributes(&tree, &change).step(&step)?;
            attach(&tree, &target).step(&step)?;
        }
        Ok(())
    }

    fn existing(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let found = self.find(path);
        match found {
            Ok(target) => Ok(Some(target)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Looks a path up in the mounted file system that contains it. A lookup from the root could be redirected by a
    /// rename, and the path would seem not to exist.
    fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = rustix::fs::OFlags::PATH;
        let deepest = self.mounted.iter().rev().find_map(|(target, tree)| {
            let below = path.strip_prefix(target).ok()?;
            (!below.as_os_str().is_empty()).then_some((tree, below))
        });
        match deepest {
            Some((tree, below)) => open_below(tree, below, flags, links(path)),
            None => self.root.open(path, flags, links(path)),
        }
    }

    /// The null device, looked up once.
    fn null(&self, known: &mut Option<OwnedFd>) -> io::Result<OwnedFd> {
        let null = match known.take() {
            Some(null) => null,
            None => self.find_null()?,
        };
        copy(known.insert(null), false)
    }

    fn find_null(&self) -> io::Result<OwnedFd> {
        let (path, flags) = (Path::new("/dev/null"), rustix::fs::OFlags::PATH);
        let null = self.root.open(path, flags, Symlinks::Refuse)?;
        let found = rustix::fs::fstat(&null)?;
        // The image can only interfere if the specification leaves `/dev` to it.
        if found.st_rdev != rustix::fs::makedev(1, 3) {
            return Err(io::Error::other("/dev/null is not the null device"));
        }
        Ok(null)
    }
}

/// An empty read-only directory, one file system for all masked directories. The mount is cloned after it has been
/// attached: kernels before 6.15 refuse to clone a detached one.
struct EmptyDirectory<'a> {
    label: &'a str,
    made: Option<OwnedFd>,
}

impl EmptyDirectory<'_> {
    /// The caller attaches the mount before it asks for the next.
    fn directory(&mut self) -> io::Result<OwnedFd> {
        if let Some(attached) = &self.made {
            return copy(attached, false);
        }
        let attributes = libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC;
        let mut options = vec![("mode", Some("0555")), ("size", Some("4k"))];
        options.extend(labels::option(self.label, "tmpfs", []));
        let tree = detached("tmpfs", &options, attributes)?;
        self.made = Some(tree.try_clone()?);
        Ok(tree)
    }
}
