//! Creation of a volume: whole or not at all.
//!
//! It is created in a directory of its own and renamed when everything is on the disk. What is mounted meanwhile is in a mount
//! namespace of the creating thread, which vanishes with the thread, and with the agent: a killed creation leaves a directory, which
//! the next agent removes.

use std::{
    fs::{File, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags},
    thread::CapabilitySet,
};
use tucano_oci_runtime::copy::{copy_content, copy_metadata};

use super::{
    backing::{self, Backing},
    error::{Attempt, Error},
    filesystem,
    place::{Identity, Place, Root, VolumeDir},
    room::{Room, is_full},
};

/// The content that a new volume gets.
#[derive(Debug, Clone)]
pub(super) struct Content {
    /// Directories of the image's layers, lowest first.
    pub(super) layers: Vec<PathBuf>,
    /// The path in the image.
    pub(super) path: String,
}

/// Creates a volume, in `finished`, with the content that the image has at its path; what an earlier attempt left is removed. Blocking.
pub(super) fn create(
    place: &Place,
    room: &Room,
    backing: &dyn Backing,
    identity: &Identity,
    content: &Content,
    finished: &VolumeDir,
) -> Result<(), Error> {
    let id = &identity.volume.id;
    let directory = place.new_volume(id);
    discard(&directory)?;
    let result = build(room, backing, &directory, identity, content);
    let result = result.and_then(|()| {
        std::fs::rename(&directory.0, &finished.0).attempt("rename", &directory.0)?;
        place.sync()
    });
    result.inspect_err(|_| {
        if let Err(left) = discard(&directory) {
            tracing::warn!(%id, %left, "cannot remove a volume that was not created");
        }
    })
}

/// Removes the directory of a volume that was not created.
pub(super) fn discard(directory: &VolumeDir) -> Result<(), Error> {
    filesystem::detach(&directory.mount_point())?;
    filesystem::detach(&directory.image_root())?;
    backing::remove(directory)?;
    directory.remove()
}

fn build(
    room: &Room,
    backing: &dyn Backing,
    directory: &VolumeDir,
    identity: &Identity,
    content: &Content,
) -> Result<(), Error> {
    directory.create()?;
    backing.create(identity, room)?;
    // The thread's mounts are its own, and so are its capabilities. Both end with it.
    let filled = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            private_mounts().attempt("leave the mount namespace for", &directory.0)?;
            backing.open_new()?;
            obey_limits().attempt("give up a capability for", &directory.0)?;
            let filled = fill(&backing.root(), directory, identity, content);
            backing.close_new()?;
            filled
        });
        thread.join()
    });
    let failed = |_| Err(io::Error::other("the thread panicked")).attempt("fill", &directory.0);
    filled.unwrap_or_else(failed)?;
    std::fs::remove_dir(directory.image_root()).attempt("remove", &directory.image_root())?;
    crate::files::sync_directory(&directory.0).attempt("sync", &directory.0)
}

/// Gives up the capability of this thread by which ext4 lets it exceed quotas: content that does not fit has to fail.
fn obey_limits() -> rustix::io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective.remove(CapabilitySet::SYS_RESOURCE);
    rustix::thread::set_capabilities(None, sets)
}

/// Gives this thread a mount namespace of its own, whose mounts nobody else sees.
fn private_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// Writes content and identity into the volume.
fn fill(
    root: &Root,
    directory: &VolumeDir,
    identity: &Identity,
    content: &Content,
) -> Result<(), Error> {
    let data = root.data();
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o755).create(&data).attempt("create", &data)?;
    std::fs::set_permissions(&data, Permissions::from_mode(0o755)).attempt("protect", &data)?;
    let copied = match open_in_image(directory, content) {
        Ok(Some(source)) => copy(&source, &data),
        Ok(None) => Ok(()),
        Err(errno) if errno == Errno::NOTDIR => {
            return Err(Error::NotADirectory {
                id: identity.volume.id.clone(),
                path: content.path.clone(),
            });
        }
        Err(errno) => Err(errno.into()),
    };
    let stored = copied
        .attempt("copy the image's content to", &data)
        .and_then(|()| root.store_identity(identity));
    stored.map_err(|error| match error {
        Error::Io { source, .. } if is_full(&source) => Error::ImageDoesNotFit {
            id: identity.volume.id.clone(),
            path: content.path.clone(),
            size: identity.size,
        },
        error => error,
    })?;
    let root = File::open(&root.0).attempt("open", &data)?;
    rustix::fs::syncfs(&root).attempt("sync", &data)
}

fn copy(source: &OwnedFd, data: &Path) -> io::Result<()> {
    let to = File::open(data)?;
    copy_content(source, &to)?;
    copy_metadata(source, &to)
}

/// Opens the directory at the path of an image, none if there is nothing. Links lead to places in the image only.
fn open_in_image(directory: &VolumeDir, content: &Content) -> rustix::io::Result<Option<OwnedFd>> {
    let Some(root) = image_root(&directory.image_root(), &content.layers)? else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&root, &content.path, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => Ok(None),
        opened => opened.map(Some),
    }
}

/// The root of an image: its layers, mounted on a directory where there are several.
fn image_root(on: &Path, layers: &[PathBuf]) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| rustix::fs::openat(CWD, path, flags, Mode::empty());
    let mut opened = layers
        .iter()
        .map(|layer| open(layer))
        .collect::<Result<Vec<_>, _>>()?;
    if opened.len() < 2 {
        return Ok(opened.pop());
    }
    // Short names: the options of a mount have to fit into a page.
    let lower: Vec<String> = opened
        .iter()
        .rev()
        .map(|layer| format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(layer)))
        .collect();
    let options = format!(
        "lowerdir={},redirect_dir=nofollow,metacopy=off",
        lower.join(":")
    );
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    let attributes = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("overlay", on, "overlay", attributes, options.as_c_str())?;
    open(on).map(Some)
}
