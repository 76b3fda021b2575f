//! The namespaces of a specification. Most are created at once by `clone3(2)`, some are joined by path. The user
//! namespace is entered last (see `userns`), the cgroup namespace once the process is in its cgroup.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::sched::CloneFlags;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Kind, LinuxTimeOffset, Spec};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::{
    channel::{Failure, Step},
    sys::{self, Cloned},
};

/// The specification's namespaces.
pub(crate) fn namespaces(spec: &Spec) -> &[LinuxNamespace] {
    spec.linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default()
}

/// Whether a namespace of this kind is listed, new or joined. Otherwise the starter's is used.
pub(crate) fn lists(spec: &Spec, kind: Kind) -> bool {
    namespaces(spec)
        .iter()
        .any(|namespace| namespace.typ() == kind)
}

/// The path at which a namespace of this kind is joined.
pub(crate) fn joined_path(spec: &Spec, kind: Kind) -> Option<&Path> {
    namespaces(spec)
        .iter()
        .find(|namespace| namespace.typ() == kind)?
        .path()
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty())
}

/// Flags for the namespaces that `clone3(2)` creates.
pub(crate) fn clone_flags(spec: &Spec) -> Result<CloneFlags, Failure> {
    let kinds = [
        (Kind::Pid, CloneFlags::CLONE_NEWPID),
        (Kind::Mount, CloneFlags::CLONE_NEWNS),
        (Kind::Uts, CloneFlags::CLONE_NEWUTS),
        (Kind::Ipc, CloneFlags::CLONE_NEWIPC),
        (Kind::Network, CloneFlags::CLONE_NEWNET),
    ];
    let flags = kinds
        .into_iter()
        .filter(|(kind, _)| creates(spec, *kind))
        .fold(CloneFlags::empty(), |all, (_, flag)| all | flag);
    // Without a mount namespace, mounts would be the host's.
    if lists(spec, Kind::Mount) {
        return Ok(flags);
    }
    let message = "a mount namespace is required: list one in linux.namespaces";
    Err(Failure::new("specification", message))
}

/// Namespaces to join, opened while paths are the host's.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// Joined by the starter, for its next child.
    pid: Option<OwnedFd>,
    /// Joined in the cgroup.
    cgroup: Option<OwnedFd>,
    /// Joined when `/proc` is no longer needed: another namespace's `/proc` is not trusted.
    mounts: Option<OwnedFd>,
    /// Joined first.
    others: Vec<(ThreadNameSpaceType, OwnedFd)>,
}

impl Joined {
    /// Opens every namespace that is to be joined.
    pub(crate) fn open(spec: &Spec) -> Result<Self, Failure> {
        let others = [
            (Kind::Network, ThreadNameSpaceType::NETWORK),
            (Kind::Ipc, ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
            (
                Kind::Uts,
                ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
            ),
            (Kind::Time, ThreadNameSpaceType::TIME),
        ];
        let mut joined = Self {
            pid: open(spec, Kind::Pid)?,
            cgroup: open(spec, Kind::Cgroup)?,
            mounts: open(spec, Kind::Mount)?,
            others: Vec::new(),
        };
        for (kind, flag) in others {
            joined
                .others
                .extend(open(spec, kind)?.map(|namespace| (flag, namespace)));
        }
        Ok(joined)
    }

    /// Clones a process into new namespaces (`flags`), a v2 cgroup, and the joined pid namespace, if there is one.
    /// This process returns to its own pid namespace for later children.
    pub(crate) fn clone_process(
        &self,
        flags: CloneFlags,
        cgroup: Option<&OwnedFd>,
    ) -> Result<Cloned, Failure> {
        const STEP: &str = "namespaces";
        let Some(wanted) = &self.pid else {
            return sys::clone_into(flags, cgroup).step(STEP);
        };
        let own = File::open("/proc/self/ns/pid").step(STEP)?;
        let kind = ThreadNameSpaceType::PROCESS_ID;
        move_into_thread_name_spaces(wanted.as_fd(), kind).step("joining the pid namespace")?;
        let cloned = sys::clone_into(flags, cgroup).step(STEP);
        if !matches!(cloned, Ok(Cloned::Child)) {
            move_into_thread_name_spaces(own.as_fd(), kind).step("leaving the pid namespace")?;
        }
        cloned
    }

    /// Joins all but the pid, cgroup and mount namespaces. Fails if a path names a namespace of another kind.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        let mut all = self.others.iter();
        all.try_for_each(|(flag, namespace)| join(namespace, *flag))
    }

    /// Joins the mount namespace, if there is one to join.
    pub(crate) fn enter_mounts(&self) -> Result<(), Failure> {
        let join = |namespace| join(namespace, ThreadNameSpaceType::MOUNT);
        self.mounts.as_ref().map_or(Ok(()), join)
    }

    /// Enters the cgroup namespace. The root of a new one is this process's cgroup.
    pub(crate) fn enter_cgroup(&self, spec: &Spec) -> Result<(), Failure> {
        const STEP: &str = "cgroup namespace";
        if let Some(namespace) = &self.cgroup {
            let kind = ThreadNameSpaceType::CONTROL_GROUP;
            return move_into_thread_name_spaces(namespace.as_fd(), kind).step(STEP);
        }
        if creates(spec, Kind::Cgroup) {
            nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).step(STEP)?;
        }
        Ok(())
    }
}

fn join(namespace: &OwnedFd, flag: ThreadNameSpaceType) -> Result<(), Failure> {
    move_into_thread_name_spaces(namespace.as_fd(), flag)
        .step(&format!("joining a namespace ({flag:?})"))
}

/// Creates and enters the time namespace, if there is one to create (time_namespaces(7)). Its clocks can only be set
/// while it has no process, so `clone3(2)` cannot create it.
pub(crate) fn enter_time(spec: &Spec) -> Result<(), Failure> {
    if !creates(spec, Kind::Time) {
        return Ok(());
    }
    let offsets = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.time_offsets().as_ref());
    let enter = || -> io::Result<()> {
        nix::sched::unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))?;
        for (clock, offset) in offsets.into_iter().flatten() {
            fs::write("/proc/self/timens_offsets", line(clock, offset))?;
        }
        let namespace = File::open("/proc/self/ns/time_for_children")?;
        let kind = ThreadNameSpaceType::TIME;
        Ok(move_into_thread_name_spaces(namespace.as_fd(), kind)?)
    };
    enter().step("time namespace")
}

/// Brings up the loopback device of a new network namespace; that of a joined one is its owner's.
pub(crate) fn bring_up_loopback(spec: &Spec) -> Result<(), Failure> {
    if creates(spec, Kind::Network) {
        return sys::bring_up_loopback().step("loopback device");
    }
    Ok(())
}

fn line(clock: &str, offset: &LinuxTimeOffset) -> String {
    let (seconds, nanoseconds) = (offset.secs(), offset.nanosecs());
    format!(
        "{clock} {} {}\n",
        seconds.unwrap_or_default(),
        nanoseconds.unwrap_or_default()
    )
}

fn open(spec: &Spec, kind: Kind) -> Result<Option<OwnedFd>, Failure> {
    let Some(path) = joined_path(spec, kind) else {
        return Ok(None);
    };
    let step = format!("the {kind} namespace {}", path.display());
    Ok(Some(File::open(path).step(&step)?.into()))
}

fn creates(spec: &Spec, kind: Kind) -> bool {
    lists(spec, kind) && joined_path(spec, kind).is_none()
}

#[cfg(test)]
mod tests;
