//! cgroups on v1, v2 and hybrid hosts: a wrapper around cgroups-rs and the files that it does not handle.
//!
//! A relative cgroup path starts at the *own* cgroup of the process that starts the container; on v1 each hierarchy
//! has one. On v2 a cgroup whose controllers are enabled for its children may not hold processes itself, so the
//! starter moves itself into the child [`LEAF`].

mod bandwidth;
mod block_io;
mod devices;
mod error;
mod filter;
mod hierarchy;
mod limits;
mod resize;
mod settings;
mod stats;
mod timing;
mod update;

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

pub use error::Error;
pub(crate) use hierarchy::Hierarchies;
pub(crate) use limits::weight;
pub use resize::Limits;
pub use stats::Stats;
pub(crate) use timing::CgroupTiming;

/// The child of the own cgroup that starters move into on v2, because a cgroup with controlled children may not hold
/// processes.
pub const LEAF: &str = "agent.scope";

/// Name of the v2 directory on a hybrid host, whose controllers are v1's.
pub(crate) const HYBRID: &str = "unified";

/// How long the processes of a cgroup may take to exit after SIGKILL.
const DESTROY_TIMEOUT: Duration = Duration::from_secs(10);

/// A container's cgroup in every hierarchy. Its paths are absolute, so that other processes find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// `(controller, directory)` on v1, with `("unified", directory)` on hybrid hosts; one entry `("", directory)` on v2.
    pub directories: Vec<(String, PathBuf)>,
}

impl Cgroup {
    /// Existing sub-cgroups, each `PATH` in every hierarchy, or `CONTROLLER:PATH` in one of v1.
    pub(crate) fn below(&self, paths: &[String]) -> Result<Self, Error> {
        let mut below = self.clone();
        for wanted in paths {
            let (controllers, path) = match wanted.split_once(':') {
                Some((controllers, path)) => (Some(controllers), path),
                None => (None, wanted.as_str()),
            };
            let relative = path.trim_matches('/');
            let relative = match relative {
                "" => PathBuf::new(),
                relative => checked(relative)?,
            };
            let is_meant =
                |name: &str| controllers.is_none_or(|list| list.split(',').any(|one| one == name));
            let meant = below
                .directories
                .iter_mut()
                .filter(|(name, _)| is_meant(name));
            let mut found = false;
            for ((name, directory), (_, own)) in
                meant.zip(self.directories.iter().filter(|(name, _)| is_meant(name)))
            {
                // The container sees v1's hierarchies alone.
                if name == HYBRID {
                    continue;
                }
                *directory = own.join(&relative);
                fs::metadata(directory.join("cgroup.procs")).map_err(|source| Error::Read {
                    path: directory.clone(),
                    source,
                })?;
                found = true;
            }
            if !found {
                return Err(Error::BadPath(wanted.clone()));
            }
        }
        Ok(below)
    }

    /// Reads the current counters.
    pub fn stats(&self) -> Result<Stats, Error> {
        stats::read(self)
    }

    /// Kills every process in the cgroup and its descendants, waits for them to exit, and removes the cgroup. A cgroup
    /// that does not exist is fine.
    pub fn destroy(&self) -> Result<(), Error> {
        let deadline = Instant::now() + DESTROY_TIMEOUT;
        loop {
            match self.remove() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => self.kill(),
            }
            pause();
        }
    }

    /// The cgroup at a path of a specification: absolute paths start at the mount point, relative ones at the own
    /// cgroup. It covers the controllers that `limits` needs. It is not created.
    pub(crate) fn specified(path: &str, limits: Option<&LinuxResources>) -> Result<Self, Error> {
        Self::in_hierarchies(&Hierarchies::current()?, path, limits)
    }

    /// The cgroup at a path as in a specification, for a container whose record is damaged. It need not exist.
    ///
    /// # Errors
    /// The path is invalid, or no cgroup hierarchy is mounted.
    pub fn at(path: &str) -> Result<Self, Error> {
        Self::specified(path, None)
    }

    /// Like [`Self::specified`], with hierarchies that are known already.
    pub(crate) fn in_hierarchies(
        hierarchies: &Hierarchies,
        path: &str,
        limits: Option<&LinuxResources>,
    ) -> Result<Self, Error> {
        let base = hierarchy::Base::of_path(path);
        let more = settings::controllers(limits);
        let path = checked(path)?;
        let found = hierarchies.find(base, &more)?;
        let directories = found
            .into_iter()
            .map(|(controller, base)| (controller, base.join(&path)))
            .collect();
        Ok(Self { directories })
    }

    /// Creates the cgroup, which is at `path` below its base, with these limits. A leftover empty cgroup is recreated,
    /// so that its counters start at zero; one that holds processes is an error.
    pub(crate) fn create(&self, path: &str, limits: Option<&LinuxResources>) -> Result<(), Error> {
        let below = checked(path)?;
        if self.is_unified() {
            self.remove()?;
        }
        let made = self
            .make_directories(&below, &settings::controllers(limits), recreate)
            .and_then(|()| limits.map_or(Ok(()), |limits| limits::set_all(self, limits)));
        if made.is_err() {
            // Report the original failure, not one of the clean-up.
            let all = self.distinct().into_iter();
            all.for_each(|directory| drop(remove_tree(directory)));
        }
        made
    }

    /// Creates the cgroup, directly below a scope that systemd has just created for process `pid`, with these limits.
    /// The process moves first: on v2 a cgroup with controlled children may not hold processes.
    pub(crate) fn create_below_scope(
        &self,
        pid: i32,
        limits: Option<&LinuxResources>,
    ) -> Result<(), Error> {
        if self.is_unified() {
            self.distinct().into_iter().try_for_each(make)?;
            self.add(pid)?;
        }
        let own = Path::new(crate::systemd::CHILD_CGROUP);
        self.make_directories(own, &settings::controllers(limits), make)?;
        limits.map_or(Ok(()), |limits| limits::set_all(self, limits))
    }

    /// Removes the parents in v1 hierarchies that systemd does not manage; parents in use stay.
    pub(crate) fn remove_scope(&self) {
        let above = self.distinct().into_iter().filter_map(Path::parent);
        above.for_each(|scope| drop(fs::remove_dir(scope)));
    }

    /// Installs the device rules; with `make_nodes`, nodes of every device can be made. Called once the container's devices exist (the rules would forbid creating them) and
    /// before its program runs.
    pub(crate) fn restrict_devices(
        &self,
        limits: Option<&LinuxResources>,
        make_nodes: bool,
    ) -> Result<(), Error> {
        let rules = limits.and_then(|limits| limits.devices().as_deref());
        devices::set(self, rules.unwrap_or_default(), make_nodes)
    }

    /// `make` creates a v1 directory.
    fn make_directories(
        &self,
        below: &Path,
        more: &[&str],
        make: fn(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        self.directories
            .iter()
            .try_for_each(|(controller, directory)| {
                if controller.is_empty() {
                    return hierarchy::delegate(directory, below, more);
                }
                // Made before the process, which is cloned into it.
                if controller == HYBRID {
                    return Ok(());
                }
                // Several controllers may share a directory.
                if seen.insert(directory) {
                    make(directory)?;
                }
                match controller.as_str() {
                    "cpuset" => settings::inherit_cpuset(directory),
                    _ => Ok(()),
                }
            })
    }

    /// Makes the OOM killer kill the whole cgroup instead of one process. Not available on v1.
    pub(crate) fn enable_oom_group(&self) -> Result<(), Error> {
        let Some(directory) = self.directory("memory").filter(|_| self.is_unified()) else {
            return Ok(());
        };
        fs::write(directory.join("memory.oom.group"), "1").map_err(|source| Error::Limit {
            what: "memory.oom.group",
            path: directory.to_owned(),
            reason: source.to_string(),
        })
    }

    /// Moves a process into it.
    pub(crate) fn add(&self, pid: i32) -> Result<(), Error> {
        self.distinct().into_iter().try_for_each(|path| {
            match fs::write(path.join("cgroup.procs"), pid.to_string()) {
                Err(error) if is_absent(&error) && self.is_hybrid(path) => Ok(()),
                other => other.map_err(|source| Error::Join {
                    pid,
                    path: path.to_owned(),
                    source,
                }),
            }
        })
    }

    /// Moves this process, which has one thread, into the cgroup. Moving a thread does not wait for a quiescent state
    /// of all forks on the host, as moving a process does (v1 has a file for threads).
    pub(crate) fn enter(&self) -> Result<(), Error> {
        const SELF: &str = "0";
        let name = if self.is_unified() {
            "cgroup.procs"
        } else {
            "tasks"
        };
        let mut all = self.distinct().into_iter();
        let is_v1 = |path: &&Path| !self.is_hybrid(path);
        all.by_ref().filter(is_v1).try_for_each(|path| {
            fs::write(path.join(name), SELF).map_err(|source| Error::Join {
                pid: rustix::process::getpid().as_raw_nonzero().get(),
                path: path.to_owned(),
                source,
            })
        })
    }

    /// Opens the v2 directory, for `CLONE_INTO_CGROUP`. On a hybrid host it is made, and a failure means that the container
    /// has none: it limits nothing there.
    pub(crate) fn open_unified(&self) -> Option<OwnedFd> {
        let directory = match self.is_unified() {
            true => self.directory("")?,
            false => {
                let directory = self.hybrid()?;
                recreate(directory).ok()?;
                directory
            }
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(directory, flags, Mode::empty()).ok()
    }

    /// The directory of the memory controller, and whether it is v2.
    pub(crate) fn memory(&self) -> Option<(&Path, bool)> {
        Some((self.directory("memory")?, self.is_unified()))
    }

    /// Whether this is a v2 cgroup.
    pub(crate) fn is_unified(&self) -> bool {
        self.directories.iter().any(|(name, _)| name.is_empty())
    }

    /// The v2 directory on a hybrid host.
    pub(crate) fn hybrid(&self) -> Option<&Path> {
        let mut all = self.directories.iter();
        let (_, directory) = all.find(|(name, _)| name == HYBRID)?;
        Some(directory)
    }

    fn is_hybrid(&self, path: &Path) -> bool {
        self.hybrid() == Some(path)
    }

    fn directory(&self, controller: &str) -> Option<&Path> {
        self.directories
            .iter()
            .find(|(name, _)| name.is_empty() || name == controller)
            .map(|(_, directory)| directory.as_path())
    }

    /// Each directory once: v1 controllers may share a directory.
    fn distinct(&self) -> BTreeSet<&Path> {
        self.directories
            .iter()
            .map(|(_, directory)| directory.as_path())
            .collect()
    }

    fn remove(&self) -> Result<(), Error> {
        self.distinct().into_iter().try_for_each(remove_tree)
    }

    fn kill(&self) {
        if self.is_unified() {
            // Kernels before 5.14 lack this file and use the fallback below.
            let killed = self
                .distinct()
                .into_iter()
                .all(|path| fs::write(path.join("cgroup.kill"), "1").is_ok());
            if killed {
                return;
            }
        }
        // Frozen processes neither fork nor exit, so a pid cannot be reused between reading and killing.
        self.freeze(true);
        for path in self.distinct() {
            signal_tree(path, rustix::process::Signal::KILL);
        }
        self.freeze(false);
    }

    /// Sends a signal to every process of the cgroup and its descendants.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        self.freeze(true);
        if let Some(path) = self.directory("pids") {
            signal_tree(path, signal);
        }
        self.freeze(false);
    }

    /// Pids of the cgroup and its descendants in this process's pid namespace, in ascending order.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        if let Some(path) = self.directory("pids") {
            list_tree(path, &mut pids);
        }
        pids.sort_unstable();
        pids
    }

    /// Freezes the cgroup: on success none of its processes runs. It is thawed again where that takes longer than `limit`.
    ///
    /// # Errors
    /// It does not exist, or the kernel did not finish in time.
    pub fn freeze_within(&self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        let path = self.directory("freezer").unwrap_or(Path::new(""));
        fs::metadata(path.join("cgroup.procs")).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        loop {
            self.freeze(true);
            if self.is_stopped() {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.freeze(false);
                return Err(Error::Limit {
                    what: "the freezer",
                    path: path.to_owned(),
                    reason: format!("not every process stopped within {limit:?}"),
                });
            }
            pause();
        }
    }

    /// Thaws the cgroup. One that is not frozen, or does not exist, is fine.
    ///
    /// # Errors
    /// The kernel did not finish in time.
    pub fn thaw(&self) -> Result<(), Error> {
        self.set_frozen(false)
    }

    /// Whether it is frozen, and no process of it runs any more.
    pub fn is_stopped(&self) -> bool {
        if !self.is_unified() {
            return self.is_frozen();
        }
        let events = self.directory("").map(|path| path.join("cgroup.events"));
        let events = events.and_then(|path| fs::read_to_string(path).ok());
        events.is_some_and(|events| events.lines().any(|line| line == "frozen 1"))
    }

    /// Creates a cgroup at a path as in a specification, with a memory limit, and moves process `pid` into it.
    ///
    /// # Errors
    /// It cannot be created, or the kernel refuses the limit or the process.
    pub fn confine(path: &str, memory_bytes: u64, pid: i32) -> Result<Self, Error> {
        let limits = serde_json::json!({ "memory": { "limit": memory_bytes } });
        let limits: Option<LinuxResources> = serde_json::from_value(limits).ok();
        let cgroup = Self::specified(path, limits.as_ref())?;
        cgroup.create(path, limits.as_ref())?;
        match cgroup.add(pid) {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                cgroup.remove().ok();
                Err(error)
            }
        }
    }

    /// Freezes or thaws the cgroup and waits until that has happened.
    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<(), Error> {
        let deadline = Instant::now() + DESTROY_TIMEOUT;
        loop {
            self.freeze(frozen);
            if self.is_frozen() == frozen {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Limit {
                    what: "the freezer",
                    path: self
                        .directory("freezer")
                        .unwrap_or(Path::new(""))
                        .to_owned(),
                    reason: "the kernel did not finish in time".into(),
                });
            }
            pause();
        }
    }

    /// Whether the cgroup is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        let (name, frozen) = if self.is_unified() {
            ("cgroup.freeze", "1")
        } else {
            ("freezer.state", "FROZEN")
        };
        self.directory("freezer")
            .and_then(|directory| fs::read_to_string(directory.join(name)).ok())
            .is_some_and(|text| text.trim() == frozen)
    }

    /// An error is ignored: the caller retries.
    pub(crate) fn freeze(&self, frozen: bool) {
        let (name, value) = match (self.is_unified(), frozen) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        if let Some(directory) = self.directory("freezer") {
            drop(fs::write(directory.join(name), value));
        }
    }
}

/// Checks whether the kernel supports device rules on v2 (`BPF_PROG_TYPE_CGROUP_DEVICE`). v1 has a controller for
/// them.
pub fn try_device_filter() -> io::Result<()> {
    devices::try_filter()
}

/// Removes the directory at `path`, interpreted as for containers, from each hierarchy if it is empty.
pub fn remove_parent(path: &str) -> Result<(), Error> {
    for directory in Cgroup::specified(path, None)?.distinct() {
        match fs::remove_dir(directory) {
            Err(error) if !is_absent(&error) && !is_in_use(&error) => {
                return Err(Error::Remove {
                    path: directory.to_owned(),
                    source: error,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Accepts a path of plain names only.
fn checked(path: &str) -> Result<PathBuf, Error> {
    use std::path::Component;
    let relative = Path::new(path.trim_start_matches('/'));
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !plain || relative.as_os_str().is_empty() || path.len() > 1024 {
        return Err(Error::BadPath(path.to_owned()));
    }
    Ok(relative.to_owned())
}

/// Creates a v1 directory; one that exists is a leftover and is recreated.
fn recreate(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if is_absent(&error) => make(path),
        Err(_) => {
            remove_tree(path)?;
            make(path)
        }
    }
}

/// Retries when the clean-up of another container removes a parent that was just created.
fn make(path: &Path) -> Result<(), Error> {
    const ATTEMPTS: usize = 20;
    let mut result = Ok(());
    for _ in 0..ATTEMPTS {
        result = fs::create_dir_all(path);
        match &result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => break,
        }
    }
    result.map_err(|source| Error::Create {
        path: path.to_owned(),
        source,
    })
}

/// Most cgroups have no children: look for them only if removal fails.
fn remove_tree(path: &Path) -> Result<(), Error> {
    let mut removed = fs::remove_dir(path);
    if removed.as_ref().is_err_and(is_in_use) {
        for child in children(path) {
            remove_tree(&child)?;
        }
        removed = fs::remove_dir(path);
    }
    match removed {
        Err(error) if !is_absent(&error) => Err(Error::Remove {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

fn signal_tree(path: &Path, signal: rustix::process::Signal) {
    let mut pids = Vec::new();
    list_tree(path, &mut pids);
    // 0 stands for a process outside of this pid namespace, which cannot be signalled.
    for pid in pids.into_iter().filter_map(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, signal).ok();
    }
}

fn list_tree(path: &Path, pids: &mut Vec<i32>) {
    for child in children(path) {
        list_tree(&child, pids);
    }
    let listed = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    pids.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn is_in_use(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
    )
}

/// v1 does not notify when a cgroup becomes removable, so it is polled.
fn pause() {
    let short = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    rustix::event::poll(&mut [], Some(&short)).ok();
}

#[cfg(test)]
mod tests;
