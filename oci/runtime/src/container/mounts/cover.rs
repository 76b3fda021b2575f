//! Mounts that lie over paths: nothing, or the same read-only.

use std::{io, os::fd::OwnedFd, path::Path};

use super::{Made, attach, copy, detached, links};
use crate::{
    channel::{Failure, Step},
    container::{
        inside::{Links, Root, open_below},
        labels,
    },
    sys::{self, MountAttributes},
};

/// Mounts that hide paths or make them read-only.
pub(crate) struct Covers<'a> {
    pub(crate) root: &'a Root,
    pub(crate) made: &'a Made,
    /// As [`super::Mounter::label`].
    pub(crate) label: &'a str,
}

impl Covers<'_> {
    /// Puts nothing over each path that exists: an empty directory, or what `/dev/null` gives.
    pub(crate) fn mask(&self, paths: &[String]) -> Result<(), Failure> {
        let mut nothing = Nothing {
            label: self.label,
            made: None,
        };
        let mut null = None;
        for path in paths {
            let step = format!("masking {path}");
            let Some(place) = self.existing(Path::new(path)).step(&step)? else {
                continue;
            };
            let mode = rustix::fs::fstat(&place).step(&step)?.st_mode;
            let cover = if rustix::fs::FileType::from_raw_mode(mode).is_dir() {
                nothing.directory()
            } else {
                self.null(&mut null)
            };
            attach(&cover.step(&step)?, &place).step(&step)?;
        }
        Ok(())
    }

    /// Puts each path that exists, with all below it, read-only over itself.
    pub(crate) fn make_read_only(&self, paths: &[String]) -> Result<(), Failure> {
        for path in paths {
            let step = format!("making {path} read-only");
            let Some(place) = self.existing(Path::new(path)).step(&step)? else {
                continue;
            };
            let tree = copy(&place, true).step(&step)?;
            let change = MountAttributes {
                set: libc::MOUNT_ATTR_RDONLY,
                recursive: true,
                ..Default::default()
            };
            sys::set_mount_attributes(&tree, &change).step(&step)?;
            attach(&tree, &place).step(&step)?;
        }
        Ok(())
    }

    fn existing(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let found = self.find(path);
        match found {
            Ok(place) => Ok(Some(place)),
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

    /// Where it is in a mounted file system, that one's: if a name on the way to it meant something else for a moment, what
    /// is to be covered would seem not to exist.
    fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = rustix::fs::OFlags::PATH;
        let deepest = self.made.iter().rev().find_map(|(place, tree)| {
            let below = path.strip_prefix(place).ok()?;
            (!below.as_os_str().is_empty()).then_some((tree, below))
        });
        match deepest {
            Some((tree, below)) => open_below(tree, below, flags, links(path)),
            None => self.root.open(path, flags, links(path)),
        }
    }

    /// The null device, which is looked for once.
    fn null(&self, known: &mut Option<OwnedFd>) -> io::Result<OwnedFd> {
        let null = match known.take() {
            Some(null) => null,
            None => self.find_null()?,
        };
        copy(known.insert(null), false)
    }

    fn find_null(&self) -> io::Result<OwnedFd> {
        let (path, flags) = (Path::new("/dev/null"), rustix::fs::OFlags::PATH);
        let null = self.root.open(path, flags, Links::Refused)?;
        let found = rustix::fs::fstat(&null)?;
        // An image cannot have put something else there: `/dev` is ours. But what if a specification leaves it to the image?
        if found.st_rdev != rustix::fs::makedev(1, 3) {
            return Err(io::Error::other("/dev/null is not the null device"));
        }
        Ok(null)
    }
}

/// An empty read-only directory, one file system for all paths that it covers. Its mount is copied once it is attached: that
/// of a detached one is refused by kernels before 6.15.
struct Nothing<'a> {
    label: &'a str,
    made: Option<OwnedFd>,
}

impl Nothing<'_> {
    /// To be attached before the next is asked for.
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
