//! The specification's mounts, each made detached and then put onto a descriptor of its target: no path of an untrusted
//! image is ever followed by a mount.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use oci_spec::runtime::Mount;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::{
    inside::{Links, Root},
    rootfs::clone_tree,
    userns::Ids,
};
use crate::{
    cgroup::Cgroup,
    channel::{Failure, Step},
    sys::{self, MountAttributes},
};

/// Options that are attributes of the mount: name, and the kernel's flag (0: the default, or nothing to us: every mount
/// is private here, for the whole namespace is).
const ATTRIBUTES: [(&str, u64); 24] = [
    ("ro", libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC),
    ("noatime", libc::MOUNT_ATTR_NOATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
    ("rro", libc::MOUNT_ATTR_RDONLY),
    ("relatime", 0),
    ("defaults", 0),
    ("rw", 0),
    ("suid", 0),
    ("dev", 0),
    ("exec", 0),
    ("atime", 0),
    ("diratime", 0),
    ("private", 0),
    ("rprivate", 0),
    ("slave", 0),
    ("rslave", 0),
    ("unbindable", 0),
    ("bind", 0),
    ("rbind", 0),
];

/// A new file system that is not mounted anywhere yet.
pub(crate) fn detached(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", kind)?;
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

/// Puts a detached mount onto what `target` refers to.
pub(crate) fn attach(tree: &impl AsFd, target: &impl AsFd) -> io::Result<()> {
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree.as_fd(), "", target.as_fd(), "", empty)?)
}

/// Where the specification's mounts go.
pub(crate) struct Mounter<'a> {
    pub(crate) root: &'a Root,
    pub(crate) ids: &'a Ids,
    pub(crate) cgroup: &'a Cgroup,
}

impl Mounter<'_> {
    /// Makes one of them.
    pub(crate) fn mount(&self, wanted: &Mount) -> Result<(), Failure> {
        let options = Options::parse(wanted);
        let path = wanted.destination().as_path();
        let kind = wanted.typ().as_deref().unwrap_or("none");
        let step = format!("mounting {kind} on {}", path.display());
        if options.bind || kind == "bind" {
            return self.bind(wanted, &options).step(&step);
        }
        if matches!(kind, "cgroup" | "cgroup2") {
            return self.cgroups(path, &options).step(&step);
        }
        let data = self.data(kind, &options).step(&step)?;
        let data: Vec<_> = data
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        let tree = detached(kind, &data, options.attributes).step(&step)?;
        attach(&tree, &self.directory(path)?).step(&step)
    }

    /// The target directory, made where missing as the container's root.
    fn directory(&self, path: &Path) -> Result<OwnedFd, Failure> {
        self.ids.as_root(|| {
            self.root
                .directory(path, links(path))
                .map_err(|error| target(path, &error))
        })
    }

    /// The target file, made where missing as the container's root.
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

    fn bind(&self, wanted: &Mount, options: &Options) -> Result<(), Failure> {
        let source = wanted
            .source()
            .as_ref()
            .ok_or("it has no source")
            .step("bind")?;
        let tree = clone_tree(source, options.recursive)?;
        let change = MountAttributes {
            set: options.attributes,
            recursive: options.recursive,
            id_map: None,
        };
        sys::set_mount_attributes(&tree, &change).step("attributes")?;
        let path = wanted.destination();
        let kind = rustix::fs::fstat(&tree).step("source")?.st_mode;
        let place = if rustix::fs::FileType::from_raw_mode(kind).is_dir() {
            self.directory(path)?
        } else {
            self.file(path)?
        };
        attach(&tree, &place).step("attaching")
    }

    /// The container's own cgroup, and nothing above it: programs read their limits there.
    fn cgroups(&self, path: &Path, options: &Options) -> Result<(), Failure> {
        let attributes = options.attributes | libc::MOUNT_ATTR_RDONLY;
        let single = |directory: &Path| -> Result<OwnedFd, Failure> {
            let tree = clone_tree(directory, false)?;
            let change = MountAttributes {
                set: attributes,
                ..Default::default()
            };
            sys::set_mount_attributes(&tree, &change).step("attributes")?;
            Ok(tree)
        };
        let place = self.directory(path)?;
        if let [(_, directory)] = self.cgroup.directories.as_slice() {
            return attach(&single(directory)?, &place).step("attaching");
        }
        let hub = detached("tmpfs", &[("mode", Some("0755"))], libc::MOUNT_ATTR_NOSUID)
            .step("the directory of the hierarchies")?;
        attach(&hub, &place).step("attaching")?;
        for (controller, directory) in &self.cgroup.directories {
            rustix::fs::mkdirat(&hub, controller, 0o755.into()).step(controller)?;
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
            let point = rustix::fs::openat(&hub, controller, flags, 0.into()).step(controller)?;
            attach(&single(directory)?, &point).step(controller)?;
        }
        let change = MountAttributes {
            set: attributes,
            ..Default::default()
        };
        sys::set_mount_attributes(&hub, &change).step("attributes")
    }

    /// What the file system itself is told; ids become the host's, for they are read in the namespace of who mounts.
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
            let (uid, gid) = self.ids.root();
            data.extend((!has_uid).then(|| ("uid".to_owned(), Some(uid.to_string()))));
            data.extend((!has_gid).then(|| ("gid".to_owned(), Some(gid.to_string()))));
        }
        Ok(data)
    }
}

/// Whether an option is one of the mount, not of the file system.
pub(crate) fn is_attribute(option: &str) -> bool {
    ATTRIBUTES.iter().any(|(name, _)| *name == option)
}

/// Every option that [`is_attribute`].
pub(crate) fn attribute_names() -> Vec<&'static str> {
    ATTRIBUTES.iter().map(|(name, _)| *name).collect()
}

fn host_id(id: &str, translate: impl Fn(u32) -> Option<u32>) -> Result<String, Failure> {
    id.parse()
        .ok()
        .and_then(translate)
        .map(|id| id.to_string())
        .ok_or_else(|| Failure::new("mount option", &format!("the id {id} is not mapped")))
}

/// Where only the runtime puts things, an image's symbolic link is an attack.
pub(crate) fn links(path: &Path) -> Links {
    let reserved = ["/proc", "/sys", "/dev"];
    if reserved.iter().any(|place| path.starts_with(place)) {
        Links::Refused
    } else {
        Links::StayInside
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

/// A mount's options, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    attributes: u64,
    bind: bool,
    recursive: bool,
    data: Vec<(String, Option<String>)>,
}

impl Options {
    fn parse(mount: &Mount) -> Self {
        let mut options = Self::default();
        for option in mount.options().iter().flatten() {
            options.bind |= matches!(option.as_str(), "bind" | "rbind");
            options.recursive |= option == "rbind";
            match ATTRIBUTES.iter().find(|(name, _)| name == option) {
                Some((_, flag)) => options.attributes |= flag,
                None => options.data.push(match option.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (option.clone(), None),
                }),
            }
        }
        options
    }
}

/// Mounts that hide paths or make them read-only.
pub(crate) struct Covers<'a> {
    pub(crate) root: &'a Root,
}

impl Covers<'_> {
    /// Puts nothing over each path that exists: an empty directory, or what `/dev/null` gives.
    pub(crate) fn mask(&self, paths: &[String]) -> Result<(), Failure> {
        let mut nothing = Nothing::default();
        for path in paths {
            let step = format!("masking {path}");
            let Some(place) = self.existing(Path::new(path)).step(&step)? else {
                continue;
            };
            let mode = rustix::fs::fstat(&place).step(&step)?.st_mode;
            let cover = if rustix::fs::FileType::from_raw_mode(mode).is_dir() {
                nothing.directory()
            } else {
                self.null()
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
                id_map: None,
            };
            sys::set_mount_attributes(&tree, &change).step(&step)?;
            attach(&tree, &place).step(&step)?;
        }
        Ok(())
    }

    fn existing(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let found = self.root.open(path, rustix::fs::OFlags::PATH, links(path));
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

    fn null(&self) -> io::Result<OwnedFd> {
        let path = PathBuf::from("/dev/null");
        let null = self
            .root
            .open(&path, rustix::fs::OFlags::PATH, Links::Refused)?;
        let found = rustix::fs::fstat(&null)?;
        // An image cannot have put something else there: `/dev` is ours. But what if a specification leaves it to the image?
        if found.st_rdev != rustix::fs::makedev(1, 3) {
            return Err(io::Error::other("/dev/null is not the null device"));
        }
        copy(&null, false)
    }
}

/// An empty read-only directory, one file system for all paths that it covers. Its mount is copied once it is attached: that
/// of a detached one is refused by kernels before 6.15.
#[derive(Default)]
struct Nothing(Option<OwnedFd>);

impl Nothing {
    /// To be attached before the next is asked for.
    fn directory(&mut self) -> io::Result<OwnedFd> {
        if let Some(attached) = &self.0 {
            return copy(attached, false);
        }
        let attributes = libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC;
        let options = [("mode", Some("0555")), ("size", Some("4k"))];
        let tree = detached("tmpfs", &options, attributes)?;
        self.0 = Some(tree.try_clone()?);
        Ok(tree)
    }
}

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
    use oci_spec::runtime::MountBuilder;

    #[test]
    fn options_are_sorted_into_attributes_and_data() {
        let mount = MountBuilder::default()
            .destination("/dev/shm")
            .typ("tmpfs")
            .options(["nosuid", "ro", "rprivate", "mode=1777", "newinstance"].map(String::from))
            .build()
            .unwrap();
        let options = Options::parse(&mount);
        assert_eq!(
            options.attributes,
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_RDONLY
        );
        let expected = [
            ("mode".to_owned(), Some("1777".to_owned())),
            ("newinstance".to_owned(), None),
        ];
        assert_eq!(options.data, expected);
        assert!(!options.bind);
    }

    #[test]
    fn links_are_refused_where_the_runtime_alone_puts_things() {
        for path in ["/proc", "/proc/sys", "/dev/pts", "/sys/fs/cgroup"] {
            assert_eq!(links(Path::new(path)), Links::Refused, "{path}");
        }
        assert_eq!(links(Path::new("/etc/hosts")), Links::StayInside);
        assert_eq!(links(Path::new("/process")), Links::StayInside);
    }
}
