//! User namespaces, entered last: see `docs/decisions/0001-late-user-namespace.md`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    sched::CloneFlags,
    unistd::{Gid, Uid, geteuid, setfsgid, setfsuid, setresuid},
};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Spec};
use rustix::{
    process::{dumpable_behavior, set_dumpable_behavior},
    thread::ThreadNameSpaceType,
};

use super::namespaces::{joined_path, lists};
use crate::{
    channel::{Channel, Failure, Step},
    sys::{self, Cloned, NamespaceHolder},
};

const STEP: &str = "user namespace";

/// A prepared user namespace and its mappings.
#[derive(Debug)]
pub(crate) struct UserNamespace {
    pub(crate) fd: OwnedFd,
    pub(crate) ids: IdMappings,
    /// Killed already, and reaped when this value is dropped.
    _holder: Option<NamespaceHolder>,
}

/// Id mappings: container ids to host ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdMappings {
    users: Vec<LinuxIdMapping>,
    groups: Vec<LinuxIdMapping>,
}

impl IdMappings {
    /// The specification's mappings, if it lists a user namespace.
    fn of(spec: &Spec) -> Result<Option<Self>, Failure> {
        if !lists(spec, LinuxNamespaceType::User) {
            return Ok(None);
        }
        Self::listed(spec).checked().map(Some)
    }

    fn listed(spec: &Spec) -> Self {
        let linux = spec.linux().as_ref();
        let mappings = |from: Option<&Option<Vec<LinuxIdMapping>>>| {
            from.and_then(Clone::clone).unwrap_or_default()
        };
        Self {
            users: mappings(linux.map(|all| all.uid_mappings())),
            groups: mappings(linux.map(|all| all.gid_mappings())),
        }
    }

    /// The mappings of a process's user namespace.
    fn of_process(pid: i32) -> Result<Self, Failure> {
        let read = |name: &str| -> Result<Vec<LinuxIdMapping>, Failure> {
            let text = fs::read_to_string(format!("/proc/{pid}/{name}")).step(STEP)?;
            text.lines().map(mapping).collect()
        };
        let ids = Self {
            users: read("uid_map")?,
            groups: read("gid_map")?,
        };
        ids.checked()
    }

    /// A container cannot be set up without a root.
    fn checked(self) -> Result<Self, Failure> {
        let maps_root = |list: &[LinuxIdMapping]| !list.is_empty() && translate(list, 0).is_some();
        if maps_root(&self.users) && maps_root(&self.groups) {
            return Ok(self);
        }
        let message = "uidMappings and gidMappings must map the container's id 0";
        Err(Failure::new(STEP, message))
    }

    /// Translates a container's uid to the host's. Without a user namespace they are equal; an unmapped uid gives
    /// none.
    pub(crate) fn host_uid(&self, uid: u32) -> Option<u32> {
        translate(&self.users, uid)
    }

    /// Translates a container's gid to the host's.
    pub(crate) fn host_gid(&self, gid: u32) -> Option<u32> {
        translate(&self.groups, gid)
    }

    /// The host's ids of the container's root.
    pub(crate) fn root(&self) -> (u32, u32) {
        (
            self.host_uid(0).unwrap_or_default(),
            self.host_gid(0).unwrap_or_default(),
        )
    }

    /// Runs file operations as the container's root: on an id-mapped mount, files of the host's root would have an
    /// unmapped owner and are refused.
    pub(crate) fn as_root<T>(
        &self,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.users.is_empty() {
            return work();
        }
        let (uid, gid) = self.root();
        setfsgid(Gid::from_raw(gid));
        setfsuid(Uid::from_raw(uid));
        // Leaving uid 0 dropped the capabilities over files, which are still needed.
        let result = raise_capabilities()
            .step("capabilities")
            .and_then(|()| work());
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
        result
    }
}

impl UserNamespace {
    /// Creates the user namespace of a specification, if it lists one, with the help of a short-lived process.
    pub(crate) fn prepare(spec: &Spec) -> Result<Option<Self>, Failure> {
        if let Some(path) = joined_path(spec, LinuxNamespaceType::User) {
            return Self::join(spec, path).map(Some);
        }
        IdMappings::of(spec)?
            .map(|ids| Self::with(ids).step(STEP))
            .transpose()
    }

    /// Creates the user namespaces of mounts with mappings of their own, by the index of the mount.
    pub(crate) fn of_mounts(spec: &Spec) -> Result<BTreeMap<usize, OwnedFd>, Failure> {
        let mut all = BTreeMap::new();
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            let (users, groups) = (mount.uid_mappings(), mount.gid_mappings());
            if let (Some(users), Some(groups)) = (users.clone(), groups.clone()) {
                let step = format!(
                    "the mappings of the mount on {}",
                    mount.destination().display()
                );
                let namespace = Self::with(IdMappings { users, groups }).step(&step)?;
                all.insert(index, namespace.fd);
            }
        }
        Ok(all)
    }

    /// Opens the user namespace at a path. A process that enters it is needed to read its mappings.
    fn join(spec: &Spec, path: &Path) -> Result<Self, Failure> {
        let step = format!("the user namespace {}", path.display());
        let fd = OwnedFd::from(File::open(path).step(&step)?);
        let (here, there) = Channel::pair().step(STEP)?;
        let (holder, pidfd) = match sys::clone_process(CloneFlags::empty()).step(STEP)? {
            Cloned::Child => enter_and_wait(&fd, &there),
            Cloned::Parent(pid, pidfd) => (pid, pidfd),
        };
        drop(there);
        let ids = match here.receive::<Result<(), String>>() {
            Ok(Some(Ok(()))) => IdMappings::of_process(holder),
            Ok(Some(Err(error))) => Err(Failure::new(&step, &error)),
            other => Err(Failure::new(
                &step,
                &format!("it could not be entered: {other:?}"),
            )),
        };
        sys::end_child(&pidfd).step(STEP)?;
        let (wanted, ids) = (IdMappings::listed(spec), ids?);
        let listed = !(wanted.users.is_empty() && wanted.groups.is_empty());
        if listed && (wanted.users != ids.users || wanted.groups != ids.groups) {
            let message = "its mappings are not uidMappings and gidMappings: omit those";
            return Err(Failure::new(&step, message));
        }
        Ok(Self::without_holder(fd, ids))
    }

    /// The user namespace of a running container.
    pub(crate) fn of(spec: &Spec, pid: i32) -> Result<Option<Self>, Failure> {
        let joined =
            joined_path(spec, LinuxNamespaceType::User).map(|_| IdMappings::of_process(pid));
        let Some(ids) = joined.map_or_else(|| IdMappings::of(spec), |ids| ids.map(Some))? else {
            return Ok(None);
        };
        let fd = File::open(format!("/proc/{pid}/ns/user"))
            .step(STEP)?
            .into();
        Ok(Some(Self::without_holder(fd, ids)))
    }

    fn with(ids: IdMappings) -> io::Result<Self> {
        let holder = as_owner(ids.root().0, || {
            NamespaceHolder::in_new(CloneFlags::CLONE_NEWUSER)
        })?;
        let file = |name: &str| format!("/proc/{}/{name}", holder.pid);
        fs::write(file("uid_map"), text(&ids.users))?;
        fs::write(file("gid_map"), text(&ids.groups))?;
        let fd = File::open(file("ns/user"))?.into();
        holder.end()?;
        Ok(Self {
            fd,
            ids,
            _holder: Some(holder),
        })
    }

    fn without_holder(fd: OwnedFd, ids: IdMappings) -> Self {
        Self {
            fd,
            ids,
            _holder: None,
        }
    }

    /// A namespace of the usual size, to check whether the host supports them.
    pub(crate) fn probe() -> io::Result<Self> {
        let mapping = serde_json::json!([{"containerID": 0, "hostID": 1 << 20, "size": 65536}]);
        let users: Vec<LinuxIdMapping> = serde_json::from_value(mapping)?;
        let groups = users.clone();
        Self::with(IdMappings { users, groups })
    }
}

/// Enters a user namespace, reports the result, and waits to be killed.
fn enter_and_wait(namespace: &OwnedFd, channel: &Channel) -> ! {
    let kind = ThreadNameSpaceType::USER;
    let entered = rustix::thread::move_into_thread_name_spaces(namespace.as_fd(), kind);
    drop(channel.send(&entered.map_err(|error| error.to_string())));
    sys::hold()
}

/// Parses a line of `/proc/<pid>/uid_map`.
fn mapping(line: &str) -> Result<LinuxIdMapping, Failure> {
    let numbers: Vec<u32> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .step(STEP)?;
    let &[container, host, size] = numbers.as_slice() else {
        return Err(Failure::new(STEP, &format!("a mapping {line:?}")));
    };
    LinuxIdMappingBuilder::default()
        .container_id(container)
        .host_id(host)
        .size(size)
        .build()
        .step(STEP)
}

/// Makes a user namespace as the user that its root is on the host. The kernel charges what is used in a namespace to its
/// owner, too (namespaces(7), `/proc/sys/user`): as the host's root, all containers together would use up root's own limits
/// of inotify instances, message queues and the like. The capabilities stay meanwhile, which some hosts ask of the process that
/// makes a user namespace.
fn as_owner<T>(uid: u32, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let root = Uid::from_raw(0);
    if uid == 0 || !geteuid().is_root() {
        return make();
    }
    // A change of the effective user takes it.
    let dumpable = dumpable_behavior()?;
    setresuid(root, Uid::from_raw(uid), root)?;
    let made = raise_capabilities()
        .map_err(io::Error::other)
        .and_then(|()| make());
    setresuid(root, root, root)?;
    set_dumpable_behavior(dumpable).ok();
    made
}

fn raise_capabilities() -> Result<(), caps::errors::CapsError> {
    let permitted = caps::read(None, caps::CapSet::Permitted)?;
    caps::set(None, caps::CapSet::Effective, &permitted)
}

fn text(mappings: &[LinuxIdMapping]) -> String {
    mappings
        .iter()
        .map(|map| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size()))
        .collect()
}

fn translate(mappings: &[LinuxIdMapping], id: u32) -> Option<u32> {
    if mappings.is_empty() {
        return Some(id);
    }
    mappings.iter().find_map(|map| {
        let offset = id.checked_sub(map.container_id())?;
        (offset < map.size()).then(|| map.host_id().checked_add(offset))?
    })
}

#[cfg(test)]
mod tests;
