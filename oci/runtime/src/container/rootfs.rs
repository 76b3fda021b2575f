//! The root file system: an overlay assembled in the container's mount namespace, or the bundle's directory; and the
//! switch of the root.

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
    fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, statx},
    mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
};

use super::{
    mounts::{self, attach, detached, options::Propagation},
    resolve::{Root, Symlinks},
    userns::{IdMappings, UserNamespace},
};
use crate::{
    channel::{Failure, Step},
    launch::{MountedImage, Parts, Rootfs},
    sys::{self, MountAttributes},
};

const STEP: &str = "root file system";

/// The kernel's overlay accepts no more.
const LAYERS_LIMIT: usize = 500;

/// Creates the directories of the writable layer. Its root gets the owner and mode of the topmost layer, because the
/// container sees it as `/`.
pub(crate) fn prepare(state_dir: &Path, rootfs: &Rootfs) -> Result<(), Failure> {
    let Rootfs::Overlay { layers, .. } = rootfs else {
        return Ok(());
    };
    let top = layers
        .last()
        .ok_or("the image has no layer")
        .step(STEP)
        .map(PathBuf::as_path)?;
    let make = || -> io::Result<()> {
        let upper = state_dir.join("upper");
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(state_dir.join("work"))?;
        let like = fs::metadata(top)?;
        chown(&upper, Some(like.uid()), Some(like.gid()))?;
        fs::set_permissions(&upper, fs::Permissions::from_mode(like.mode() & 0o7777))
    };
    make()
        .map_err(|error| format!("the writable layer in {}: {error}", state_dir.display()))
        .step(STEP)
}

/// The mounts of images, which are not at their places in the container yet.
pub(crate) type ImageMounts<'a> = Vec<(&'a Path, OwnedFd)>;

/// Mounts the root file system in this mount namespace, and the images that are to be mounted in it.
pub(crate) fn mount_root<'a>(
    launch: Parts<'a>,
    namespace: Option<&UserNamespace>,
) -> Result<(Root, ImageMounts<'a>), Failure> {
    // Stop propagation to the host.
    rustix::mount::mount_change("/", propagation(launch.spec)).step(STEP)?;
    match launch.rootfs {
        Rootfs::Bundle => Ok((bundle(launch)?, Vec::new())),
        Rootfs::Overlay { layers, images, .. } => {
            overlay(launch.state_dir, layers, images, namespace)
        }
    }
}

fn wanted_propagation(spec: &Spec) -> Option<&str> {
    let linux = spec.linux().as_ref()?;
    linux.rootfs_propagation().as_deref()
}

/// Propagation from the host is kept if requested; nothing ever propagates to the host.
fn propagation(spec: &Spec) -> MountPropagationFlags {
    let kind = match wanted_propagation(spec) {
        Some("slave" | "rslave") => MountPropagationFlags::DOWNSTREAM,
        _ => MountPropagationFlags::PRIVATE,
    };
    MountPropagationFlags::REC | kind
}

/// Mounts a clone of the bundle's root on [`mount_point`]. Until the root is entered, hooks in this mount namespace and
/// the sources of bind mounts find the container's mounts there.
fn bundle(launch: Parts<'_>) -> Result<Root, Failure> {
    let root = launch.spec.root().as_ref();
    let root = root
        .ok_or("the specification has no root.path")
        .step(STEP)?;
    let tree = clone_tree(root.path(), true)?;
    attach(&tree, &open_directory(mount_point(launch))?).step(STEP)?;
    Ok(Root(tree))
}

/// Where the root file system is mounted until it is entered.
pub(crate) fn mount_point(launch: Parts<'_>) -> &Path {
    let root = launch
        .spec
        .root()
        .as_ref()
        .map(|root| root.path().as_path());
    match (launch.rootfs, root) {
        // Nothing can be looked up in a mount on the root of the file system.
        (Rootfs::Bundle, Some(path)) if path != Path::new("/") => path,
        _ => launch.state_dir,
    }
}

fn overlay<'a>(
    state_dir: &Path,
    layers: &[PathBuf],
    images: &'a [MountedImage],
    namespace: Option<&UserNamespace>,
) -> Result<(Root, ImageMounts<'a>), Failure> {
    // Clone the layers before the staging tmpfs covers the state directory, which they may be in.
    let of_root = mapped_layers(layers, namespace)?;
    let of_images: Vec<_> = images
        .iter()
        .map(|image| mapped_layers(&image.layers, namespace))
        .collect::<Result<_, _>>()?;
    let ids = namespace.map(|namespace| namespace.ids.clone());
    let ids = ids.unwrap_or_default();
    let stage = Stage::new(state_dir, namespace)?;
    let root = stage.mount_root(&of_root, &ids)?;
    let mounted = images.iter().zip(&of_images).enumerate();
    let mounted = mounted.map(|(index, (image, layers))| {
        let path = image.destination.as_path();
        let mounted = stage.mount_image(index, layers, &ids);
        let mounted = mounted.step(&format!("the image on {}", path.display()))?;
        Ok((path, mounted))
    });
    Ok((root, mounted.collect::<Result<_, Failure>>()?))
}

/// Clones of layers, lowest first, with the ids of the namespace.
fn mapped_layers(
    layers: &[PathBuf],
    namespace: Option<&UserNamespace>,
) -> Result<Vec<OwnedFd>, Failure> {
    if layers.len() > LAYERS_LIMIT {
        let message = format!("{} layers, {LAYERS_LIMIT} at most", layers.len());
        return Err(Failure::new(STEP, &message));
    }
    let trees = layers.iter().map(|layer| mapped_tree(layer, namespace));
    trees.collect()
}

/// A small tmpfs over the state directory in this namespace. It holds the mounts of the overlays under short, plain
/// names.
struct Stage {
    directory: OwnedFd,
    state_dir: OwnedFd,
}

impl Stage {
    fn new(state_dir_path: &Path, namespace: Option<&UserNamespace>) -> Result<Self, Failure> {
        let state_dir = mapped_tree(state_dir_path, namespace)?;
        let directory = detached("tmpfs", &[("mode", Some("0700"))], 0).step(STEP)?;
        attach(&directory, &open_directory(state_dir_path)?).step(STEP)?;
        Ok(Self {
            directory,
            state_dir,
        })
    }

    fn mount_root(&self, layers: &[OwnedFd], ids: &IdMappings) -> Result<Root, Failure> {
        let lower = add_layers(&self.directory, layers)?;
        add(&self.directory, "state", &self.state_dir)?;
        let options = format!("lowerdir={lower},upperdir=state/upper,workdir=state/work");
        mount_overlay(&self.directory, &options, MsFlags::empty(), ids).map(Root)
    }

    fn mount_image(
        &self,
        index: usize,
        layers: &[OwnedFd],
        ids: &IdMappings,
    ) -> Result<OwnedFd, Failure> {
        let name = format!("image-{index}");
        rustix::fs::mkdirat(&self.directory, &*name, Mode::RWXU).step(STEP)?;
        let directory = directory_in(&self.directory, &name)?;
        let mut lower = add_layers(&directory, layers)?;
        if let [_] = layers {
            // Also a single layer is seen through an overlay, which hides its whiteouts and marks. Without an upper layer the
            // kernel asks for two lower ones.
            rustix::fs::mkdirat(&directory, "empty", Mode::RWXU).step(STEP)?;
            lower += ":empty";
        }
        let options = format!("lowerdir={lower}");
        mount_overlay(&directory, &options, MsFlags::MS_RDONLY, ids)
    }
}

/// Attaches layers to directories of their numbers; returns them as overlayfs takes them, uppermost first.
fn add_layers(directory: &OwnedFd, layers: &[OwnedFd]) -> Result<String, Failure> {
    for (index, layer) in layers.iter().enumerate() {
        add(directory, &index.to_string(), layer)?;
    }
    let names: Vec<_> = (0..layers.len())
        .rev()
        .map(|index| index.to_string())
        .collect();
    Ok(names.join(":"))
}

fn add(directory: &OwnedFd, name: &str, tree: &OwnedFd) -> Result<(), Failure> {
    rustix::fs::mkdirat(directory, name, Mode::RWXU).step(STEP)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", directory, name, flags).step(STEP)
}

/// Mounts an overlay on a new directory `root` in this one, which the options start at.
fn mount_overlay(
    directory: &OwnedFd,
    options: &str,
    flags: MsFlags,
    ids: &IdMappings,
) -> Result<OwnedFd, Failure> {
    // Layers cannot request redirection or other extensions of overlayfs.
    let options = format!("{options},redirect_dir=nofollow,metacopy=off");
    rustix::fs::mkdirat(directory, "root", Mode::RWXU).step(STEP)?;
    rustix::process::fchdir(directory).step(STEP)?;
    let kind = Some("overlay");
    // Services have no_new_privs: set-user-ID bits and file capabilities have no effect. The kernel ignores them on
    // such a mount; elsewhere it refuses to execute a file with capabilities that the process cannot get.
    let flags = flags | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    ids.as_root(|| {
        mount(kind, "root", kind, flags, Some(&*options))
            .map_err(|error| format!("mounting the overlay: {error}"))
            .step(STEP)
    })?;
    directory_in(directory, "root")
}

fn directory_in(directory: &OwnedFd, name: &str) -> Result<OwnedFd, Failure> {
    let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, open, Mode::empty()).step(STEP)
}

/// Moves images to their places in the container. Before all other mounts: a symbolic link of the root can lead them nowhere but to
/// directories of the root, never over a volume or `/proc`.
pub(crate) fn attach_images(
    images: &ImageMounts<'_>,
    root: &Root,
    ids: &IdMappings,
) -> Result<(), Failure> {
    for (path, image) in images {
        let place = || {
            let target = mounts::directory(root, path, ids)?;
            attach(image, &target).step("attaching")
        };
        place().step(&format!("mounting an image on {}", path.display()))?;
    }
    Ok(())
}

/// Makes the root file system this process's root and detaches the host's.
pub(crate) fn enter(root: &Root) -> Result<(), Failure> {
    let enter = || -> rustix::io::Result<()> {
        rustix::process::fchdir(root)?;
        // With both arguments the same, the old root is stacked on the new one, and no directory for it is needed.
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    };
    enter().step("pivot_root")
}

/// The same for a host whose root is a ramdisk, where `pivot_root` fails: moves the root, mounted at `place`, over
/// the old one. Other mounts are unmounted first, so that nothing but the ramdisk remains beneath.
pub(crate) fn enter_without_pivot(root: &Root, place: &Path) -> Result<(), Failure> {
    const STEP: &str = "--no-pivot";
    let mounts = MountInfos::from_file("/proc/self/mountinfo").step(STEP)?;
    // Later mounts may be stacked on earlier ones.
    let others = mounts.0.iter().rev().map(|mount| &mount.mount_point);
    for other in others.filter(|other| !place.starts_with(other) && !other.starts_with(place)) {
        // Some have gone with their parent.
        rustix::mount::unmount(other, UnmountFlags::DETACH).ok();
    }
    let enter = || -> rustix::io::Result<()> {
        rustix::process::fchdir(root)?;
        rustix::mount::mount_move(".", "/")?;
        rustix::process::chroot(".")?;
        rustix::process::chdir("/")
    };
    enter().step(STEP)
}

/// Applies `rootfsPropagation` to the container's root. The peer group starts here: it never includes mounts of the
/// host.
pub(crate) fn set_propagation(spec: &Spec) -> Result<(), Failure> {
    let Some(wanted) = wanted_propagation(spec).and_then(Propagation::of) else {
        return Ok(());
    };
    // Private and slave are in effect already.
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

/// Makes the root mount read-only.
pub(crate) fn make_read_only(root: &Root) -> Result<(), Failure> {
    let change = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Default::default()
    };
    sys::set_mount_attributes(root, &change).step(STEP)
}

/// Mounts directories of the overlay on themselves, so that they stay writable when the root becomes read-only. A path
/// that is no directory, or that leads to the root itself, stays as it is.
pub(crate) fn keep_writable(launch: Parts<'_>, root: &Root) -> Result<(), Failure> {
    let Rootfs::Overlay { writable, .. } = launch.rootfs else {
        return Ok(());
    };
    if !is_read_only(launch.spec) {
        return Ok(());
    }
    for path in writable {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(directory) = root.open(path, flags, Symlinks::InRoot) else {
            continue;
        };
        if is_mount_root(&directory).step(STEP)? {
            continue;
        }
        let keep = || -> io::Result<()> {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH;
            attach(
                &rustix::mount::open_tree(&directory, "", flags)?,
                &directory,
            )
        };
        keep()
            .map_err(|error| format!("keeping {} writable: {error}", path.display()))
            .step(STEP)?;
    }
    Ok(())
}

/// Whether a directory is the top of a mount. Before the specification's mounts only the root and the directories that are
/// kept writable are.
fn is_mount_root(directory: &OwnedFd) -> io::Result<bool> {
    let found = statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether the specification asks for a read-only root.
pub(crate) fn is_read_only(spec: &Spec) -> bool {
    let root = spec.root().as_ref();
    root.and_then(oci_spec::runtime::Root::readonly) == Some(true)
}

/// Clones the mount at a path.
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

/// Maps the ids of a mount's files to the user namespace's.
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
