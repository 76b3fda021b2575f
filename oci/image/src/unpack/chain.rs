//! What an image's layers mean together, beyond what overlayfs makes of them.
//!
//! A layer may have directories without an entry of their own, since the archive has only entries below them. Overlayfs
//! shows a directory as its uppermost layer has it; such a directory must look as the next lower layer has it. Layers are
//! shared between images, so this cannot be written into the layer: it belongs to the chain of layers. A small directory
//! on top of the chain has these directories, empty, with their right modes, owners and attributes.
//!
//! A layer whose root is opaque hides all lower layers: they are left out of the chain.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags, fchmod, fchown,
        fgetxattr, flistxattr, fsetxattr, fstat, futimens, mkdirat, openat, statat,
    },
    io::{Errno, Result},
};

use super::directories::times;
use crate::{
    layer::{
        mark::RootMark,
        path::split,
        xattrs::{IMPLIED, MARK, is_kept},
    },
    limits::PATH_DEPTH,
    tarball::header::Time,
};

/// Most directories that are looked at for one layer. In a layer with more of them, the others keep their default.
const DIRECTORIES: usize = 200_000;
const IMPLIED_MODE: u32 = 0o755;
const OPAQUE: &str = "trusted.overlay.opaque";

/// The unpacked layers of an image, lowest first, without those that are hidden as a whole.
#[derive(Debug)]
pub(crate) struct Chain {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    path: PathBuf,
    root: OwnedFd,
    mark: Option<RootMark>,
}

/// The visible properties of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Looks {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    xattrs: BTreeMap<String, Vec<u8>>,
}

/// What one layer has at a path.
enum Found {
    /// A directory, and whether an opaque parent hides the lower layers. One that is opaque itself hides their content,
    /// but has their mode and owner if it is implied.
    Directory { fd: OwnedFd, hides_lower: bool },
    /// Nothing, and whether an opaque parent hides the lower layers.
    Nothing { hides_lower: bool },
    /// A whiteout or another file, at the path or above it.
    Other,
}

impl Chain {
    /// Opens the layers' directories, lowest first.
    pub(crate) fn open(directories: &[PathBuf]) -> io::Result<Self> {
        let mut layers = Vec::new();
        for path in directories {
            let root: OwnedFd = File::open(path)?.into();
            let mark = get_xattr(root.as_fd(), MARK)?.and_then(|mark| RootMark::parse(&mark));
            if mark.is_some_and(|mark| mark.is_opaque) {
                layers.clear();
            }
            layers.push(Layer {
                path: path.clone(),
                root,
                mark,
            });
        }
        Ok(Self { layers })
    }

    /// The directories for an overlay, lowest first.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        self.layers.iter().map(|layer| layer.path.clone()).collect()
    }

    /// The directories that must look otherwise than in their uppermost layer, with all their parents; by path.
    pub(crate) fn corrections(&self) -> io::Result<BTreeMap<Vec<u8>, Looks>> {
        let mut corrections = BTreeMap::new();
        for layer in self.layers.iter().skip(1) {
            for path in layer.implied()? {
                if let Some(looks) = self.correction(&path)? {
                    corrections.insert(path, looks);
                }
            }
        }
        let parents: Vec<Vec<u8>> = corrections.keys().flat_map(|path| parents(path)).collect();
        for parent in parents {
            if !corrections.contains_key(&parent) {
                let (_, right) = self.looks(&parent)?;
                corrections.extend(right.map(|right| (parent, right)));
            }
        }
        Ok(corrections)
    }

    /// Adds directories of the image that it declares and that no layer has, with their parents.
    pub(crate) fn add_missing(
        &self,
        paths: &[Vec<u8>],
        corrections: &mut BTreeMap<Vec<u8>, Looks>,
    ) -> io::Result<()> {
        for path in paths {
            if path.is_empty() || self.has(path)? {
                continue;
            }
            for path in [path.clone()].into_iter().chain(parents(path)) {
                if let Entry::Vacant(slot) = corrections.entry(path) {
                    let (_, right) = self.looks(slot.key())?;
                    slot.insert(right.unwrap_or_default());
                }
            }
        }
        Ok(())
    }

    /// Whether something is at a path, or in place of one of its parents.
    fn has(&self, path: &[u8]) -> io::Result<bool> {
        for layer in self.layers.iter().rev() {
            match layer.find(path)? {
                Found::Directory { .. } => return Ok(true),
                // A whiteout is no file, but there is no need to tell them apart: such an image is left as it is.
                Found::Other => return Ok(true),
                Found::Nothing { hides_lower: true } => return Ok(false),
                Found::Nothing { .. } => {}
            }
        }
        Ok(false)
    }

    fn correction(&self, path: &[u8]) -> io::Result<Option<Looks>> {
        let (shown, right) = self.looks(path)?;
        let differs = |(shown, right): (&Looks, &Looks)| {
            (shown.mode, shown.owner, &shown.xattrs) != (right.mode, right.owner, &right.xattrs)
        };
        match shown.as_ref().zip(right.as_ref()).is_some_and(differs) {
            true => Ok(right),
            false => Ok(None),
        }
    }

    /// How overlayfs shows the directory at a path, and how it should look; nothing if it is not visible.
    fn looks(&self, path: &[u8]) -> io::Result<(Option<Looks>, Option<Looks>)> {
        let mut shown = None;
        for layer in self.layers.iter().rev() {
            let hides_lower = match layer.find(path)? {
                Found::Other => break,
                Found::Nothing { hides_lower } => hides_lower,
                Found::Directory { fd, hides_lower } => {
                    let looks = Looks::of(fd.as_fd())?;
                    if !layer.is_implied(path, fd.as_fd(), &looks)? {
                        let shown = shown.or_else(|| Some(looks.clone()));
                        return Ok((shown, Some(looks)));
                    }
                    shown = shown.or(Some(looks));
                    hides_lower
                }
            };
            if hides_lower {
                break;
            }
        }
        Ok((shown.clone(), shown))
    }
}

impl Layer {
    /// The paths of the directories that may have no entry of their own.
    fn implied(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut paths = Vec::new();
        if self.mark.is_none_or(|mark| mark.is_implied) {
            paths.push(Vec::new());
        }
        if self.mark.is_none_or(|mark| mark.implied_directories > 0) {
            let mut left = DIRECTORIES;
            self.add_implied(self.root.as_fd(), &mut Vec::new(), &mut paths, &mut left, 0)?;
        }
        Ok(paths)
    }

    fn add_implied(
        &self,
        directory: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        paths: &mut Vec<Vec<u8>>,
        left: &mut usize,
        depth: usize,
    ) -> io::Result<()> {
        if depth > PATH_DEPTH {
            return Ok(());
        }
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || !may_be_directory(entry.file_type()) {
                continue;
            }
            let Ok(child) = open_directory(directory, name.to_bytes()) else {
                continue;
            };
            let Some(next) = left.checked_sub(1) else {
                tracing::warn!(layer = %self.path.display(), "too many directories: some keep a default mode and owner");
                return Ok(());
            };
            *left = next;
            let length = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            if self.is_implied(path, child.as_fd(), &Looks::of(child.as_fd())?)? {
                paths.push(path.clone());
            }
            self.add_implied(child.as_fd(), path, paths, left, depth + 1)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn is_implied(
        &self,
        path: &[u8],
        directory: BorrowedFd<'_>,
        looks: &Looks,
    ) -> io::Result<bool> {
        match self.mark {
            Some(mark) if path.is_empty() => Ok(mark.is_implied),
            Some(_) => Ok(get_xattr(directory, MARK)?.is_some_and(|mark| mark == IMPLIED)),
            // Unpacked by an earlier version, or without marks.
            None => Ok(looks.is_default()),
        }
    }

    fn find(&self, path: &[u8]) -> io::Result<Found> {
        let mut fd = self.root.try_clone()?;
        let (mut hides_lower, mut is_opaque) = (false, false);
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            let kind = match statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {
                    let hides_lower = hides_lower || is_opaque;
                    return Ok(Found::Nothing { hides_lower });
                }
                stat => FileType::from_raw_mode(stat?.st_mode),
            };
            if kind != FileType::Directory {
                return Ok(Found::Other);
            }
            fd = open_directory(fd.as_fd(), name)?;
            hides_lower |= is_opaque;
            is_opaque = get_xattr(fd.as_fd(), OPAQUE)?.is_some_and(|value| value == b"y");
        }
        Ok(Found::Directory { fd, hides_lower })
    }
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            mode: IMPLIED_MODE,
            owner: (0, 0),
            mtime: (0, 0),
            xattrs: BTreeMap::new(),
        }
    }
}

impl Looks {
    fn of(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let stat: Stat = fstat(directory)?;
        let mut xattrs = BTreeMap::new();
        for name in list_xattrs(directory)? {
            if is_kept(&name)
                && let Some(value) = get_xattr(directory, &name)?
            {
                xattrs.insert(name, value);
            }
        }
        Ok(Self {
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            mtime: (
                stat.st_mtime,
                u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            ),
            xattrs,
        })
    }

    fn is_default(&self) -> bool {
        let is_default_owner = self.owner == (0, 0) || !rustix::process::geteuid().is_root();
        self.mode == IMPLIED_MODE
            && is_default_owner
            && self.mtime == (0, 0)
            && self.xattrs.is_empty()
    }

    fn apply(&self, directory: BorrowedFd<'_>) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
            fchown(directory, Some(uid), Some(gid))?;
        }
        for (name, value) in &self.xattrs {
            fsetxattr(directory, name.as_str(), value, XattrFlags::empty())?;
        }
        fchmod(directory, Mode::from_raw_mode(self.mode))
    }
}

/// Writes the corrections below an empty directory.
pub(crate) fn write(root: BorrowedFd<'_>, corrections: &BTreeMap<Vec<u8>, Looks>) -> Result<()> {
    // Parents sort before their children.
    for (path, looks) in corrections {
        let directory = match path.is_empty() {
            true => open_directory(root, b".")?,
            false => {
                let (parent, name) = split(path);
                let parent = descend(root, parent)?;
                mkdirat(&parent, name, Mode::from_raw_mode(0o700))?;
                open_directory(parent.as_fd(), name)?
            }
        };
        looks.apply(directory.as_fd())?;
    }
    // Children change the times of their parents.
    for (path, looks) in corrections.iter().rev() {
        let mtime = Time {
            seconds: looks.mtime.0,
            nanoseconds: looks.mtime.1,
        };
        futimens(descend(root, path)?, &times(mtime))?;
    }
    Ok(())
}

fn descend(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let names = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty());
    names.fold(open_directory(root, b"."), |directory, name| {
        open_directory(directory?.as_fd(), name)
    })
}

/// All parents of a path, up to the root.
fn parents(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut path = path.to_vec();
    std::iter::from_fn(move || {
        if path.is_empty() {
            return None;
        }
        path = split(&path).0.to_vec();
        Some(path.clone())
    })
}

fn may_be_directory(kind: FileType) -> bool {
    matches!(kind, FileType::Directory | FileType::Unknown)
}

fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn list_xattrs(directory: BorrowedFd<'_>) -> Result<Vec<String>> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match flistxattr(directory, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        length => length?,
    };
    let names = names[..length].split(|byte| *byte == 0);
    Ok(names
        .filter_map(|name| String::from_utf8(name.to_vec()).ok())
        .filter(|name| !name.is_empty())
        .collect())
}

fn get_xattr(file: BorrowedFd<'_>, name: &str) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; 256];
    loop {
        match fgetxattr(file, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < 64 << 10 => value.resize(64 << 10, 0),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}
