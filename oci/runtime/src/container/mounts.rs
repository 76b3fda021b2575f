//! The specification's mounts. Each is created detached and then attached to a descriptor of its target, so that no
//! path of an untrusted image is resolved by mount(2).

mod masks;
pub(crate) mod options;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Mount, Spec};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

pub(crate) use self::masks::Masks;
use self::options::Options;
use super::{
    labels,
    resolve::{Root, Symlinks},
    rootfs::clone_tree,
    userns::{IdMappings, UserNamespace},
};
use crate::{
    cgroup::{Cgroup, HYBRID},
    channel::{Failure, Step},
    sys::{self, MountAttributes},
};

/// Creates a file system that is not mounted anywhere yet.
pub(crate) fn detached(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    detached_from(Path::new(kind), kind, options, attributes)
}

/// Like [`detached`], with a source: a device, or the name shown in the list of mounts.
fn detached_from(
    source: &Path,
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", source)?;
    for (name, value) in options {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), *name, *value)?,
            None => fsconfig_set_flag(context.as_fd(), *name)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Attaches a detached mount to the target.
pub(crate) fn attach(tree: &impl AsFd, target: &impl AsFd) -> io::Result<()> {
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree.as_fd(), "", target.as_fd(), "", empty)?)
}

/// Source mounts by the index of the mount in the specification.
pub(crate) type Sources = BTreeMap<usize, OwnedFd>;

/// Clones the sources of mounts with shared or slave propagation. Called before this namespace's mounts are made
/// private: a later clone would not be a peer of the host's mount. A source that does not exist yet may be in a mount of
/// the container, and is cloned in its turn.
pub(crate) fn clone_shared_sources(spec: &Spec) -> Result<Sources, Failure> {
    let mut sources = Sources::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let options = Options::parse(mount);
        if options.needs_peers() && mount.source().as_ref().is_some_and(|path| path.exists()) {
            sources.insert(index, source(mount, &options)?);
        }
    }
    Ok(sources)
}

/// Whether the process must be in the container's cgroup before this mount: the mount shows the cgroup, or uses memory
/// that must be accounted to it.
pub(crate) fn needs_cgroup(mount: &Mount) -> bool {
    mount.typ().as_deref().is_some_and(is_cgroup) || Options::parse(mount).copy_up
}

fn is_cgroup(kind: &str) -> bool {
    matches!(kind, "cgroup" | "cgroup2")
}

fn source(mount: &Mount, options: &Options) -> Result<OwnedFd, Failure> {
    let source = mount.source().as_ref().ok_or("it has no source");
    let source = source.step("bind")?;
    if options.direct_source {
        let place = || direct(source).and_then(|place| copy(&place, options.recursive));
        return place()
            .map_err(|error| format!("{}: {error}", source.display()))
            .step("bind");
    }
    clone_tree(source, options.recursive)
}

/// File systems that have been mounted and their targets. Later lookups start at the mount itself: its path may refer
/// to something else by then.
pub(crate) type MountedFileSystems = Vec<(PathBuf, OwnedFd)>;

/// Performs the specification's mounts.
pub(crate) struct Mounter<'a> {
    pub(crate) root: &'a Root,
    pub(crate) ids: &'a IdMappings,
    pub(crate) cgroup: &'a Cgroup,
    /// The container's user namespace, used by `idmap` without mappings of its own.
    pub(crate) namespace: Option<&'a UserNamespace>,
    /// User namespaces of mounts that have mappings of their own.
    pub(crate) id_maps: &'a Sources,
    /// SELinux label for file systems without labels of their own; empty: the policy's default.
    pub(crate) label: &'a str,
    /// Sources that were cloned earlier.
    pub(crate) shared_sources: Sources,
    /// File systems mounted so far.
    pub(crate) mounted: MountedFileSystems,
    /// Those that become read-only once everything below them exists.
    pub(crate) read_only: Vec<OwnedFd>,
}

impl Mounter<'_> {
    /// Performs the mount at this index of the specification.
    pub(crate) fn mount(&mut self, index: usize, mount: &Mount) -> Result<(), Failure> {
        let options = Options::parse(mount);
        let path = mount.destination().as_path();
        let kind = mount.typ().as_deref().unwrap_or("none");
        let step = format!("mounting {kind} on {}", path.display());
        if options.bind {
            return self.bind(index, mount, &options).step(&step);
        }
        if is_cgroup(kind) {
            return self.cgroups(path, &options).step(&step);
        }
        self.file_system(kind, mount, options).step(&step)
    }

    fn file_system(
        &mut self,
        kind: &str,
        mount: &Mount,
        mut options: Options,
    ) -> Result<(), Failure> {
        let path = mount.destination().as_path();
        let mut data = self.data(kind, &options)?;
        if kind == "tmpfs" {
            data.extend(self.mode_of_target(path, &options)?);
        }
        let target_fd = self.directory(path)?;
        let mut data: Vec<_> = data
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        let given = data.iter().map(|(name, _)| *name);
        let label = labels::option(self.label, kind, given);
        data.extend(label);
        let source = mount.source().as_deref().unwrap_or(Path::new(kind));
        let holds_targets = kind == "tmpfs" || path == Path::new("/dev");
        let is_read_only_later = holds_targets && options.own.take_read_only();
        let attributes = options.take_creation_attributes();
        let making = label.map_or("making it".to_owned(), |_| {
            format!("making it with the label {:?}", self.label)
        });
        let tree = detached_from(source, kind, &data, attributes).step(&making)?;
        labels::mark(&tree, self.label, kind).step("its label")?;
        if options.copy_up {
            let below = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            let below = self.root.open(path, below, links(path)).step("tmpcopyup")?;
            crate::copy::copy_content(&below, &tree).step("tmpcopyup")?;
        }
        change(&tree, &options).step("attributes")?;
        attach(&tree, &target_fd).step("attaching")?;
        if is_read_only_later {
            self.read_only.push(tree.try_clone().step("attributes")?);
        }
        self.mounted.push((path.to_owned(), tree));
        Ok(())
    }

    /// A tmpfs without a `mode` gets the mode of the directory that it covers, so that it is not more permissive.
    fn mode_of_target(
        &self,
        path: &Path,
        options: &Options,
    ) -> Result<Option<(String, Option<String>)>, Failure> {
        if options.data.iter().any(|(name, _)| name == "mode") {
            return Ok(None);
        }
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let Ok(target_fd) = self.root.open(path, flags, links(path)) else {
            return Ok(None);
        };
        let mode = rustix::fs::fstat(&target_fd).step("target")?.st_mode & 0o7777;
        Ok(Some(("mode".to_owned(), Some(format!("{mode:o}")))))
    }

    fn directory(&self, path: &Path) -> Result<OwnedFd, Failure> {
        directory(self.root, path, self.ids)
    }

    /// The target file. A missing file is created as the container's root.
    fn file(&self, path: &Path) -> Result<OwnedFd, Failure> {
        let file = self.ids.as_root(|| {
            self.root
                .file(path, links(path))
                .map_err(|error| target(path, &error))
        })?;
        let kind = rustix::fs::fstat(&file).step("target")?.st_mode;
        if rustix::fs::FileType::from_raw_mode(kind).is_dir() {
            return Err(target(path, &rustix::io::Errno::ISDIR.into()));
        }
        Ok(file)
    }

    fn bind(&mut self, index: usize, mount: &Mount, options: &Options) -> Result<(), Failure> {
        let tree = match self.shared_sources.remove(&index) {
            // A second clone is placed in the order of mounts; kernels before 6.15 refuse it.
            Some(tree) => copy(&tree, options.recursive).unwrap_or(tree),
            None => source(mount, options)?,
        };
        if let Some(recursive) = options.id_map {
            self.map_ids(index, &tree, recursive)?;
        }
        change(&tree, options).step("attributes")?;
        let path = mount.destination();
        let kind = rustix::fs::fstat(&tree).step("source")?.st_mode;
        let target_fd = if rustix::fs::FileType::from_raw_mode(kind).is_dir() {
            self.directory(path)?
        } else {
            self.file(path)?
        };
        attach(&tree, &target_fd).step("attaching")
    }

    fn map_ids(&self, index: usize, tree: &OwnedFd, recursive: bool) -> Result<(), Failure> {
        const STEP: &str = "mapping its ids";
        let of_container = self.namespace.map(|namespace| &namespace.fd);
        let id_map = self.id_maps.get(&index).or(of_container);
        let change = MountAttributes {
            id_map: Some(id_map.ok_or("there is no user namespace").step(STEP)?),
            recursive,
            ..Default::default()
        };
        sys::set_mount_attributes(tree, &change)
            .map_err(|error| format!("{error} (does its file system allow it?)"))
            .step(STEP)
    }

    /// Mounts the container's own cgroup, without its ancestors. Programs read their limits there.
    fn cgroups(&self, path: &Path, options: &Options) -> Result<(), Failure> {
        let single = |directory: &Path| -> Result<OwnedFd, Failure> {
            let tree = clone_tree(directory, false)?;
            change(&tree, options).step("attributes")?;
            Ok(tree)
        };
        let target_fd = self.directory(path)?;
        if let [(_, directory)] = self.cgroup.directories.as_slice() {
            return attach(&single(directory)?, &target_fd).step("attaching");
        }
        let mut data = vec![("mode", Some("0755"))];
        data.extend(labels::option(self.label, "tmpfs", []));
        let hub = detached("tmpfs", &data, libc::MOUNT_ATTR_NOSUID)
            .step("the directory of the hierarchies")?;
        attach(&hub, &target_fd).step("attaching")?;
        let v1 = self.cgroup.directories.iter();
        for (controller, directory) in v1.filter(|(name, _)| name != HYBRID) {
            rustix::fs::mkdirat(&hub, controller, 0o755.into()).step(controller)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&single(directory)?, "", &hub, controller, flags).step(controller)?;
        }
        change(&hub, options).step("attributes")
    }

    /// File system options. IdMappings are translated to the host's, because they are read in the mounting process's
    /// namespace.
    fn data(
        &self,
        kind: &str,
        options: &Options,
    ) -> Result<Vec<(String, Option<String>)>, Failure> {
        let mut data = Vec::new();
        let (mut has_uid, mut has_gid) = (false, false);
        for (name, value) in &options.data {
            let translated = match (name.as_str(), value) {
                ("uid", Some(id)) => {
                    has_uid = true;
                    Some(host_id(id, |id| self.ids.host_uid(id))?)
                }
                ("gid", Some(id)) => {
                    has_gid = true;
                    Some(host_id(id, |id| self.ids.host_gid(id))?)
                }
                (_, value) => value.clone(),
            };
            data.push((name.clone(), translated));
        }
        if kind == "tmpfs" {
            // The host's root is the default.
            let (uid, gid) = self.ids.root();
            let given = [("uid", uid, has_uid), ("gid", gid, has_gid)];
            let missing = given.iter().filter(|(_, id, has)| *id != 0 && !has);
            data.extend(missing.map(|(name, id, _)| ((*name).to_owned(), Some(id.to_string()))));
        }
        Ok(data)
    }
}

/// The directory at the target of a mount. Missing directories are created as the container's root.
pub(crate) fn directory(root: &Root, path: &Path, ids: &IdMappings) -> Result<OwnedFd, Failure> {
    ids.as_root(|| {
        root.directory(path, links(path))
            .map_err(|error| target(path, &error))
    })
}

/// Makes mounts read-only.
pub(crate) fn make_read_only(mounts: &[OwnedFd]) -> Result<(), Failure> {
    let change = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Default::default()
    };
    mounts
        .iter()
        .try_for_each(|mount| sys::set_mount_attributes(mount, &change))
        .step("making a mount read-only")
}

/// Applies the attributes and the propagation of a mount.
fn change(tree: &OwnedFd, options: &Options) -> io::Result<()> {
    for (attributes, recursive) in [(options.own, false), (options.all, true)] {
        let propagation = options
            .propagation
            .filter(|mount| mount.recursive == recursive)
            .map_or(0, |mount| mount.kind);
        if attributes.is_empty() && propagation == 0 {
            continue;
        }
        let change = MountAttributes {
            set: attributes.set,
            clear: attributes.clear,
            propagation,
            recursive,
            id_map: None,
        };
        sys::set_mount_attributes(tree, &change)?;
    }
    Ok(())
}

fn host_id(id: &str, translate: impl Fn(u32) -> Option<u32>) -> Result<String, Failure> {
    id.parse()
        .ok()
        .and_then(translate)
        .map(|id| id.to_string())
        .ok_or_else(|| Failure::new("mount option", &format!("the id {id} is not mapped")))
}

/// Symbolic links are refused where only the runtime may create things.
pub(crate) fn links(path: &Path) -> Symlinks {
    let reserved = ["/proc", "/sys", "/dev"];
    if reserved.iter().any(|target_fd| path.starts_with(target_fd)) {
        Symlinks::Refuse
    } else {
        Symlinks::InRoot
    }
}

fn target(path: &Path, error: &io::Error) -> Failure {
    let why = match error.raw_os_error() {
        Some(libc::ELOOP) => "the image has a symbolic link there".to_owned(),
        Some(libc::ENOTDIR) => "the image has a file where a directory is needed".to_owned(),
        Some(libc::EISDIR) => "the image has a directory where a file is needed".to_owned(),
        _ => error.to_string(),
    };
    Failure::new(&format!("the target {}", path.display()), &why)
}

/// Opens what is at a path without a symbolic link in it.
fn direct(path: &Path) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let resolve = rustix::fs::ResolveFlags::NO_SYMLINKS;
    let (at, mode) = (rustix::fs::CWD, rustix::fs::Mode::empty());
    Ok(rustix::fs::openat2(at, path, flags, mode, resolve)?)
}

/// Clones the mount that a descriptor refers to.
fn copy(of: &OwnedFd, recursive: bool) -> io::Result<OwnedFd> {
    use rustix::mount::OpenTreeFlags;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(rustix::mount::open_tree(of, "", flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_refused_below_reserved_directories() {
        for path in ["/proc", "/proc/sys", "/dev/pts", "/sys/fs/cgroup"] {
            assert_eq!(links(Path::new(path)), Symlinks::Refuse, "{path}");
        }
        assert_eq!(links(Path::new("/etc/hosts")), Symlinks::InRoot);
        assert_eq!(links(Path::new("/process")), Symlinks::InRoot);
    }

    #[test]
    fn a_direct_source_is_not_reached_by_a_link() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/below")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        assert!(direct(&root.join("real/below")).is_ok());
        for path in ["link", "link/below"] {
            let refused = direct(&root.join(path)).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ELOOP), "{path}");
        }
    }
}
