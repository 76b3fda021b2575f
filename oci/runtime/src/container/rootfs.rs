//! The root file system: an overlay put together in the container's own mount namespace, and the move into it.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};
use oci_spec::runtime::Spec;
use procfs::{FromRead, process::MountInfos};
use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
};

use super::{
    inside::Root,
    mounts::{attach, detached, options::Propagation},
    userns::{Ids, UserNamespace},
};
use crate::{
    channel::{Failure, Step},
    launch::{Parts, Rootfs},
    sys::{self, MountAttributes},
};

const STEP: &str = "root file system";

/// More layers than the kernel's overlay takes.
const LAYERS_LIMIT: usize = 500;

/// Makes the writable layer's directories. Its root looks like the topmost layer's, for it is what the container sees.
pub(crate) fn prepare(home: &Path, rootfs: &Rootfs) -> Result<(), Failure> {
    let Rootfs::Overlay { layers } = rootfs else {
        return Ok(());
    };
    let top = layers
        .last()
        .ok_or("the image has no layer")
        .step(STEP)
        .map(PathBuf::as_path)?;
    let make = || -> io::Result<()> {
        let upper = home.join("upper");
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(home.join("work"))?;
        let like = fs::metadata(top)?;
        chown(&upper, Some(like.uid()), Some(like.gid()))?;
        fs::set_permissions(&upper, fs::Permissions::from_mode(like.mode() & 0o7777))
    };
    make()
        .map_err(|error| format!("the writable layer in {}: {error}", home.display()))
        .step(STEP)
}

/// Mounts the root file system in this mount namespace, which nobody else sees.
pub(crate) fn mount_root(
    launch: Parts<'_>,
    namespace: Option<&UserNamespace>,
) -> Result<Root, Failure> {
    // Nothing of what follows may propagate to the host.
    rustix::mount::mount_change("/", propagation(launch.spec)).step(STEP)?;
    match launch.rootfs {
        Rootfs::Bundle => bundle(launch),
        Rootfs::Overlay { layers } => overlay(launch.home, layers, namespace),
    }
}

fn wanted_propagation(spec: &Spec) -> Option<&str> {
    let linux = spec.linux().as_ref()?;
    linux.rootfs_propagation().as_deref()
}

/// Mounts of the host may come in later where that is asked for; none ever goes out.
fn propagation(spec: &Spec) -> MountPropagationFlags {
    let kind = match wanted_propagation(spec) {
        Some("slave" | "rslave") => MountPropagationFlags::DOWNSTREAM,
        _ => MountPropagationFlags::PRIVATE,
    };
    MountPropagationFlags::REC | kind
}

fn bundle(launch: Parts<'_>) -> Result<Root, Failure> {
    let path = launch
        .spec
        .root()
        .as_ref()
        .map(|root| root.path().clone())
        .ok_or("the specification has no root.path")
        .step(STEP)?;
    let tree = clone_tree(&path, true)?;
    attach(&tree, &open_directory(launch.home)?).step(STEP)?;
    Ok(Root(tree))
}

fn overlay(
    home: &Path,
    layers: &[PathBuf],
    namespace: Option<&UserNamespace>,
) -> Result<Root, Failure> {
    if layers.len() > LAYERS_LIMIT {
        let message = format!("{} layers, {LAYERS_LIMIT} at most", layers.len());
        return Err(Failure::new(STEP, &message));
    }
    // Before the stage hides the home directory, which layers may lie in.
    let trees: Vec<_> = layers
        .iter()
        .map(|layer| mapped_tree(layer, namespace))
        .collect::<Result<_, _>>()?;
    let stage = Stage::new(home, namespace)?;
    for (index, tree) in trees.iter().enumerate() {
        stage.add(&index.to_string(), tree)?;
    }
    stage.add("home", &stage.home)?;
    let ids = namespace.map(|namespace| namespace.ids.clone());
    stage.mount_overlay(layers.len(), &ids.unwrap_or_default())
}

/// A small tmpfs that lies over the home directory in this namespace and holds the mounts that the overlay is made of:
/// their names there are short and plain, whatever the real paths are.
struct Stage {
    directory: OwnedFd,
    home: OwnedFd,
}

impl Stage {
    fn new(home_path: &Path, namespace: Option<&UserNamespace>) -> Result<Self, Failure> {
        let home = mapped_tree(home_path, namespace)?;
        let directory = detached("tmpfs", &[("mode", Some("0700"))], 0).step(STEP)?;
        attach(&directory, &open_directory(home_path)?).step(STEP)?;
        Ok(Self { directory, home })
    }

    fn add(&self, name: &str, tree: &OwnedFd) -> Result<(), Failure> {
        rustix::fs::mkdirat(&self.directory, name, Mode::RWXU).step(STEP)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(tree, "", &self.directory, name, flags).step(STEP)
    }

    fn mount_overlay(&self, layers: usize, ids: &Ids) -> Result<Root, Failure> {
        let lower: Vec<_> = (0..layers).rev().map(|index| index.to_string()).collect();
        // The image's files cannot ask for redirection; nobody asks this file system for more than plain files.
        let options = format!(
            "lowerdir={},upperdir=home/upper,workdir=home/work,redirect_dir=nofollow,metacopy=off",
            lower.join(":")
        );
        rustix::fs::mkdirat(&self.directory, "root", Mode::RWXU).step(STEP)?;
        rustix::process::fchdir(&self.directory).step(STEP)?;
        let kind = Some("overlay");
        ids.as_root(|| {
            mount(kind, "root", kind, MsFlags::MS_NODEV, Some(&*options))
                .map_err(|error| format!("mounting the overlay of {layers} layers: {error}"))
                .step(STEP)
        })?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, "root", flags, Mode::empty())
            .map(Root)
            .step(STEP)
    }
}

/// Makes the root file system this process's root, and leaves nothing of the host's within reach.
pub(crate) fn enter(root: &Root) -> Result<(), Failure> {
    let enter = || -> rustix::io::Result<()> {
        rustix::process::fchdir(root)?;
        // Both the same: the old root comes to lie on top of the new one, and no directory for it is needed.
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    };
    enter().step("pivot_root")
}

/// The same where the host's root is a ramdisk, which `pivot_root` does not put away: the new root, which lies at `home`, is
/// moved over the old one. What was mounted on the old one is unmounted, so that nothing but that itself remains beneath.
pub(crate) fn enter_without_pivot(root: &Root, home: &Path) -> Result<(), Failure> {
    const STEP: &str = "--no-pivot";
    let mounts = MountInfos::from_file("/proc/self/mountinfo").step(STEP)?;
    // Later ones lie on earlier ones.
    let others = mounts.0.iter().rev().map(|mount| &mount.mount_point);
    for place in others.filter(|place| !home.starts_with(place) && !place.starts_with(home)) {
        // Some are gone with what they lay on.
        rustix::mount::unmount(place, UnmountFlags::DETACH).ok();
    }
    let enter = || -> rustix::io::Result<()> {
        rustix::process::fchdir(root)?;
        rustix::mount::mount_move(".", "/")?;
        rustix::process::chroot(".")?;
        rustix::process::chdir("/")
    };
    enter().step(STEP)
}

/// Gives the container's root the propagation that the specification names. Sharing begins here: its mounts are peers of those
/// that are copied from them inside, never of the host's.
pub(crate) fn set_propagation(spec: &Spec) -> Result<(), Failure> {
    let Some(wanted) = wanted_propagation(spec).and_then(Propagation::of) else {
        return Ok(());
    };
    // Private and slave is what all were made to begin with.
    if matches!(wanted.kind, libc::MS_PRIVATE | libc::MS_SLAVE) {
        return Ok(());
    }
    let kind = if wanted.kind == libc::MS_SHARED {
        MountPropagationFlags::SHARED
    } else {
        MountPropagationFlags::UNBINDABLE
    };
    let mut flags = kind;
    flags.set(MountPropagationFlags::REC, wanted.recursive);
    rustix::mount::mount_change("/", flags).step("rootfsPropagation")
}

/// Makes the root's mount read-only.
pub(crate) fn make_read_only(root: &Root) -> Result<(), Failure> {
    let change = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Default::default()
    };
    sys::set_mount_attributes(root, &change).step(STEP)
}

/// A copy of the mount of this path that nobody else has.
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd, Failure> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(CWD, path, flags)
        .map_err(|error| format!("{}: {error}", path.display()))
        .step(STEP)
}

fn mapped_tree(path: &Path, namespace: Option<&UserNamespace>) -> Result<OwnedFd, Failure> {
    let tree = clone_tree(path, false)?;
    if let Some(namespace) = namespace {
        map(&tree, namespace)
            .map_err(|error| {
                let path = path.display();
                format!("{path} cannot be id-mapped, so no user namespace can use it: {error}")
            })
            .step(STEP)?;
    }
    Ok(tree)
}

/// Shows the files of a mount with the ids that the namespace maps theirs to.
pub(crate) fn map(tree: &OwnedFd, namespace: &UserNamespace) -> io::Result<()> {
    let change = MountAttributes {
        id_map: Some(&namespace.fd),
        ..Default::default()
    };
    sys::set_mount_attributes(tree.as_fd(), &change)
}

fn open_directory(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| format!("{}: {error}", path.display()))
        .step(STEP)
}
