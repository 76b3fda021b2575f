//! Locates the cgroup hierarchies and this process's own cgroup, as its mount and cgroup namespaces show them.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use procfs::{FromRead, ProcessCGroup, ProcessCGroups, process::MountInfo};

use super::{Error, HYBRID, LEAF, is_in_use, make};

/// v1 controllers of every container. blkio comes before memory, because writeback accounting joins the two.
const CONTROLLERS: [&str; 7] = [
    "blkio", "memory", "cpu", "cpuacct", "pids", "devices", "freezer",
];

/// Controllers that are required for limits.
const REQUIRED: [&str; 2] = ["memory", "pids"];

/// v2 controllers of every container, where the host has them.
const UNIFIED_CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// Typical size of /proc/self/mountinfo.
const MOUNTS_BYTES: usize = 16 << 10;

/// What a cgroup path is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// The own cgroup of this process.
    Own,
    /// The mount point of the hierarchy.
    Mount,
}

impl Base {
    /// As specified, absolute paths start at the mount point and relative ones at the own cgroup.
    pub(super) fn of_path(path: &str) -> Self {
        if path.starts_with('/') {
            Self::Mount
        } else {
            Self::Own
        }
    }
}

/// Mount points of the hierarchies.
#[derive(Debug)]
pub(crate) struct Hierarchies(Vec<MountInfo>);

impl Hierarchies {
    /// Reads them from this process's mount namespace.
    pub(crate) fn current() -> Result<Self, Error> {
        // The kernel generates the file anew for each read, so it is read at once.
        let mut text = Vec::with_capacity(MOUNTS_BYTES);
        File::open("/proc/self/mountinfo")
            .and_then(|mut file| file.read_to_end(&mut text))
            .map_err(|source| unknown(source.into()))?;
        let mounts = cgroup_mounts(&String::from_utf8_lossy(&text)).map_err(unknown)?;
        Ok(Self(mounts))
    }

    /// Returns `(controller, base directory)` for each v1 hierarchy, or `("", base directory)` on v2. `more` names v1
    /// controllers beyond the usual ones. A hybrid host has `("unified", base directory)`, too.
    pub(super) fn find(&self, base: Base, more: &[&str]) -> Result<Vec<(String, PathBuf)>, Error> {
        // Reading the own cgroup is slow, and absolute paths do not need it.
        let memberships = match base {
            Base::Own => ProcessCGroups::from_file("/proc/self/cgroup").map_err(unknown)?,
            Base::Mount => ProcessCGroups(Vec::new()),
        };
        let is_writable =
            |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
        let exists = |path: &Path| path.is_dir();
        locate(&self.0, &memberships.0, base, more, &exists, &is_writable)
    }
}

/// Keeps only the cgroup mounts: a host with many containers has hundreds of other mounts. The file system type
/// follows a hyphen (`proc_pid_mountinfo(5)`).
fn cgroup_mounts(mounts: &str) -> procfs::ProcResult<Vec<MountInfo>> {
    let lines = mounts.lines().filter(|line| line.contains(" - cgroup"));
    lines.map(MountInfo::from_line).collect()
}

fn unknown(error: procfs::ProcError) -> Error {
    Error::NoHierarchy {
        detail: error.to_string(),
    }
}

/// A hybrid host has its controllers on v1; its cgroup2 mount has none. There the container has a cgroup too, by which eBPF
/// programs and service managers know its processes.
fn locate(
    mounts: &[MountInfo],
    memberships: &[ProcessCGroup],
    base: Base,
    more: &[&str],
    exists: &dyn Fn(&Path) -> bool,
    is_writable: &dyn Fn(&Path) -> bool,
) -> Result<Vec<(String, PathBuf)>, Error> {
    let found: Vec<_> = CONTROLLERS
        .iter()
        .chain(more)
        .filter_map(|name| {
            Some((
                (*name).to_owned(),
                v1(name, mounts, memberships, base, exists)?,
            ))
        })
        .collect();
    let has = |wanted: &&str| found.iter().any(|(name, _)| name == wanted);
    if REQUIRED.iter().all(has) {
        let hybrid = unified(mounts, memberships, base, exists)
            .filter(|place| is_writable(place))
            .map(|place| (HYBRID.to_owned(), place));
        return Ok(found.into_iter().chain(hybrid).collect());
    }
    if let Some(directory) = unified(mounts, memberships, base, exists) {
        return Ok(vec![(String::new(), directory)]);
    }
    Err(Error::NoHierarchy {
        detail: format!(
            "v1 controllers found: {:?}",
            found.iter().map(|(name, _)| name).collect::<Vec<_>>()
        ),
    })
}

/// Translates `directory`, which lies in the v1 hierarchy of controller `known`, to the hierarchy of `wanted`; none if
/// that is not mounted.
pub(super) fn same_place(
    wanted: &str,
    known: &str,
    directory: &Path,
) -> Result<Option<PathBuf>, Error> {
    let Hierarchies(mounts) = Hierarchies::current()?;
    let below = hierarchies(&mounts, known)
        .find_map(|mount| directory.strip_prefix(&mount.mount_point).ok());
    let top = hierarchies(&mounts, wanted).next();
    Ok(below
        .zip(top)
        .map(|(below, top)| top.mount_point.join(below)))
}

fn hierarchies<'a>(
    mounts: &'a [MountInfo],
    controller: &'a str,
) -> impl Iterator<Item = &'a MountInfo> {
    mounts.iter().filter(move |mount| {
        mount.fs_type == "cgroup" && mount.super_options.contains_key(controller)
    })
}

/// Enables v2 controllers in `parent` and all its ancestors that lack them.
pub(super) fn enable_all(parent: &Path, more: &[&str]) -> Result<(), Error> {
    let mut parents: Vec<_> = parent
        .ancestors()
        .take_while(|place| place.join("cgroup.subtree_control").exists())
        .collect();
    parents.reverse();
    parents
        .into_iter()
        .try_for_each(|place| enable(place, more))
}

fn v1(
    controller: &str,
    mounts: &[MountInfo],
    memberships: &[ProcessCGroup],
    base: Base,
    exists: &dyn Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let has_it = |entry: &ProcessCGroup| entry.controllers.iter().any(|name| name == controller);
    let own = own_path(memberships, base, has_it)?;
    hierarchies(mounts, controller)
        .filter_map(|mount| visible(mount, own, base))
        .find(|path| exists(path))
}

fn unified(
    mounts: &[MountInfo],
    memberships: &[ProcessCGroup],
    base: Base,
    exists: &dyn Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let own = own_path(memberships, base, |entry| entry.hierarchy == 0)?;
    let directory = mounts
        .iter()
        .filter(|mount| mount.fs_type == "cgroup2")
        .filter_map(|mount| visible(mount, own, base))
        .find(|path| exists(path))?;
    // A starter that moved into the leaf still owns the parent.
    match directory.file_name() {
        Some(name) if base == Base::Own && name == LEAF => directory.parent().map(Path::to_owned),
        _ => Some(directory),
    }
}

/// This process's path in the hierarchy; not needed if the base is the mount point.
fn own_path(
    memberships: &[ProcessCGroup],
    base: Base,
    is_its: impl Fn(&ProcessCGroup) -> bool,
) -> Option<&str> {
    match base {
        Base::Own => Some(&memberships.iter().find(|entry| is_its(entry))?.pathname),
        Base::Mount => Some(""),
    }
}

/// Where a mount shows the base, if it does.
fn visible(mount: &MountInfo, own: &str, base: Base) -> Option<PathBuf> {
    if base == Base::Mount {
        return Some(mount.mount_point.clone());
    }
    let below = Path::new(own).strip_prefix(&mount.root).ok()?;
    let plain = below
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    plain.then(|| mount.mount_point.join(below))
}

/// Creates the v2 cgroup `directory`, which is `below` the base, and enables the controllers in all its ancestors down
/// from the base.
pub(super) fn delegate(directory: &Path, below: &Path, more: &[&str]) -> Result<(), Error> {
    make(directory)?;
    let depth = below.components().count();
    let mut parents: Vec<_> = directory.ancestors().skip(1).take(depth).collect();
    parents.reverse();
    for parent in &parents {
        enable(parent, more)?;
    }
    parents
        .last()
        .map_or(Ok(()), |parent| wait_for_controllers(parent))
}

/// Waits for another starter that is enabling controllers at the same time: the kernel lists them before their files
/// exist. Enabling them again is a no-op that waits for it.
fn wait_for_controllers(parent: &Path) -> Result<(), Error> {
    let control = parent.join("cgroup.subtree_control");
    let again = || {
        let enabled = fs::read_to_string(&control)?;
        let names: Vec<_> = enabled
            .split_whitespace()
            .map(|name| format!("+{name}"))
            .collect();
        fs::write(&control, names.join(" "))
    };
    again().map_err(|source| Error::Enable {
        path: parent.to_owned(),
        controllers: "enabled".to_owned(),
        source,
    })
}

fn enable(parent: &Path, more: &[&str]) -> Result<(), Error> {
    let failed = |controllers: &str| {
        let controllers = controllers.to_owned();
        move |source| Error::Enable {
            path: parent.to_owned(),
            controllers,
            source,
        }
    };
    let control = parent.join("cgroup.subtree_control");
    let available =
        fs::read_to_string(parent.join("cgroup.controllers")).map_err(failed("available"))?;
    let enabled = fs::read_to_string(&control).map_err(failed("enabled"))?;
    let lists = |list: &str, name: &str| list.split_whitespace().any(|other| other == name);
    let wanted: Vec<_> = UNIFIED_CONTROLLERS
        .iter()
        .chain(more)
        .filter(|name| lists(&available, name) && !lists(&enabled, name))
        .map(|name| format!("+{name}"))
        .collect();
    // systemd configures the cgroups above a delegated one.
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted = wanted.join(" ");
    match fs::write(&control, &wanted) {
        Err(error) if is_in_use(&error) => {
            move_into_leaf(parent).map_err(failed(&wanted))?;
            fs::write(&control, &wanted).map_err(failed(&wanted))
        }
        other => other.map_err(failed(&wanted)),
    }
}

/// Moves the processes of `parent` into its leaf (cgroups(7), "no internal processes" rule).
fn move_into_leaf(parent: &Path) -> io::Result<()> {
    let leaf = parent.join(LEAF);
    fs::create_dir_all(&leaf)?;
    for pid in fs::read_to_string(parent.join("cgroup.procs"))?.lines() {
        match fs::write(leaf.join("cgroup.procs"), pid) {
            // The process has exited meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
