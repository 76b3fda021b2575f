//! cgroups on v2, v1 and hybrid hosts: one small module around cgroups-rs and the files it does not read.
//!
//! A container's cgroup lies below the *own* cgroup of the process that starts it, which differs between the hierarchies
//! of v1. On v2, a process that is not in the root and has children with controllers must move itself out of the way: it
//! does so into [`LEAF`].

mod block_io;
mod devices;
mod filter;
mod limits;
mod own;
mod settings;
mod stats;
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

use crate::home::{self, Home, Record};
pub(crate) use limits::weight;
pub(crate) use own::Hierarchies;
pub use stats::Stats;

/// The cgroup below their own (v2) that starters move into, for a cgroup with controlled children may hold no process.
pub const LEAF: &str = "agent.scope";

/// How long the processes of a cgroup may take to be gone after SIGKILL.
const DESTROY_PATIENCE: Duration = Duration::from_secs(10);

/// Why a cgroup could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable cgroup hierarchy.
    #[error(
        "no cgroup hierarchy with the memory and pids controllers is mounted and shows this process's own cgroup ({detail}): \
         mount /sys/fs/cgroup, or run on the host"
    )]
    NoHierarchy {
        /// What was found instead.
        detail: String,
    },
    /// A path that would lead out of the own cgroup.
    #[error("the cgroup path {0:?} must be relative and without `..`")]
    BadPath(String),
    /// A directory cannot be made.
    #[error("cannot create the cgroup {path}: {source}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A v2 controller cannot be delegated to children.
    #[error("cannot enable the controllers {controllers} below the cgroup {path}: {source}")]
    Enable {
        /// The parent.
        path: PathBuf,
        /// `+name` each.
        controllers: String,
        /// Why.
        source: io::Error,
    },
    /// A limit is refused.
    #[error("cannot set {what} of the cgroup {path}: {reason}")]
    Limit {
        /// The kind of limit.
        what: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A value that a file does not take.
    #[error("cannot write {value:?} to {file}: {source}")]
    Setting {
        /// The file.
        file: PathBuf,
        /// The value.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A process cannot be moved in.
    #[error("cannot move process {pid} into the cgroup {path}: {source}")]
    Join {
        /// The process.
        pid: i32,
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be removed.
    #[error("cannot remove the cgroup {path}: {source}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The home directory cannot be read.
    #[error(transparent)]
    Home(#[from] home::Error),
}

/// One container's cgroup, in every hierarchy that has one; its paths are absolute, so it can be found again by another caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// `(controller, directory)` on v1; one entry `("", directory)` on v2.
    pub directories: Vec<(String, PathBuf)>,
}

impl Cgroup {
    /// The cgroup of the container with this home directory, as its supervisor noted it.
    pub fn of(home: &Path) -> Result<Option<Self>, Error> {
        let record = Home(home).read::<Record>("supervisor.json")?;
        Ok(record.map(|record| record.cgroup))
    }

    /// What it counts now.
    pub fn stats(&self) -> Result<Stats, Error> {
        stats::read(self)
    }

    /// Kills every process in it (and below) with SIGKILL and removes it, waiting for the processes to be gone; absent is fine.
    pub fn destroy(&self) -> Result<(), Error> {
        let deadline = Instant::now() + DESTROY_PATIENCE;
        loop {
            match self.remove() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => self.kill(),
            }
            pause();
        }
    }

    /// The cgroup at a path as a specification means it: absolute from the top of what is mounted, else below this process's
    /// own one; under the controllers that these limits need. It is not made.
    pub(crate) fn specified(path: &str, limits: Option<&LinuxResources>) -> Result<Self, Error> {
        Self::among(&Hierarchies::here()?, path, limits)
    }

    /// The same where it is known where the hierarchies are.
    pub(crate) fn among(
        hierarchies: &Hierarchies,
        path: &str,
        limits: Option<&LinuxResources>,
    ) -> Result<Self, Error> {
        let base = own::Base::of_specified(path);
        let more = settings::controllers(limits);
        let path = checked(path)?;
        let directories = hierarchies
            .find(base, &more)?
            .into_iter()
            .map(|(controller, base)| (controller, base.join(&path)))
            .collect();
        Ok(Self { directories })
    }

    /// Makes it, which is at `path` below its base, with these limits. One that an earlier container left is made
    /// anew, so that its counters do not pass on; one that holds processes is an error.
    pub(crate) fn create(&self, path: &str, limits: Option<&LinuxResources>) -> Result<(), Error> {
        let below = checked(path)?;
        if self.is_unified() {
            self.remove()?;
        }
        let made = self
            .make_directories(&below, &settings::controllers(limits), make_anew)
            .and_then(|()| limits.map_or(Ok(()), |limits| limits::set_numbers(self, limits)));
        if made.is_err() {
            // Why it could not be made says more than why that could not be undone.
            let all = self.distinct().into_iter();
            all.for_each(|directory| drop(remove_tree(directory)));
        }
        made
    }

    /// Makes it, which is directly below a scope that systemd has just made with this process in it, with these limits. The
    /// process is moved first: on v2 a cgroup with controlled children may hold none.
    pub(crate) fn create_below_scope(
        &self,
        pid: i32,
        limits: Option<&LinuxResources>,
    ) -> Result<(), Error> {
        if self.is_unified() {
            self.distinct().into_iter().try_for_each(make)?;
            self.add(pid)?;
        }
        let own = Path::new(crate::systemd::BELOW);
        self.make_directories(own, &settings::controllers(limits), make)?;
        limits.map_or(Ok(()), |limits| limits::set_numbers(self, limits))
    }

    /// Removes what is above it in hierarchies of v1 that systemd does not look after; what is in use stays.
    pub(crate) fn remove_scope(&self) {
        let above = self.distinct().into_iter().filter_map(Path::parent);
        above.for_each(|scope| drop(fs::remove_dir(scope)));
    }

    /// Denies it devices but for the default ones and those that are asked for. To be called when its devices have been made,
    /// which these rules would forbid, and before its program runs.
    pub(crate) fn restrict_devices(&self, limits: Option<&LinuxResources>) -> Result<(), Error> {
        let rules = limits.and_then(|limits| limits.devices().as_deref());
        devices::set(self, rules.unwrap_or_default())
    }

    /// `make` makes one of v1.
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
                    return own::delegate(directory, below, more);
                }
                // Controllers may share one.
                if seen.insert(directory) {
                    make(directory)?;
                }
                match controller.as_str() {
                    "cpuset" => settings::inherit_cpuset(directory),
                    _ => Ok(()),
                }
            })
    }

    /// Lets the kernel, where memory lacks, end all of it instead of one process. v1 cannot.
    pub(crate) fn end_as_one(&self) -> Result<(), Error> {
        let Some(directory) = self.directory("memory").filter(|_| self.is_unified()) else {
            return Ok(());
        };
        fs::write(directory.join("memory.oom.group"), "1").map_err(|source| Error::Limit {
            what: "the end for lack of memory",
            path: directory.to_owned(),
            reason: source.to_string(),
        })
    }

    /// Moves a process into it.
    pub(crate) fn add(&self, pid: i32) -> Result<(), Error> {
        self.distinct().into_iter().try_for_each(|path| {
            fs::write(path.join("cgroup.procs"), pid.to_string()).map_err(|source| Error::Join {
                pid,
                path: path.to_owned(),
                source,
            })
        })
    }

    /// Moves this process, which has one thread, into it. As a thread of itself, it does so without waiting until no process is
    /// being made anywhere on the host (cgroups of v1 have a file for threads).
    pub(crate) fn enter(&self) -> Result<(), Error> {
        const SELF: &str = "0";
        let name = if self.is_unified() {
            "cgroup.procs"
        } else {
            "tasks"
        };
        self.distinct().into_iter().try_for_each(|path| {
            fs::write(path.join(name), SELF).map_err(|source| Error::Join {
                pid: rustix::process::getpid().as_raw_nonzero().get(),
                path: path.to_owned(),
                source,
            })
        })
    }

    /// Its directory on v2, where a process can be made in it.
    pub(crate) fn open_unified(&self) -> Option<OwnedFd> {
        let directory = self.directory("").filter(|_| self.is_unified())?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(directory, flags, Mode::empty()).ok()
    }

    /// The directory with its limit of memory, and whether that is v2's.
    pub(crate) fn memory(&self) -> Option<(&Path, bool)> {
        Some((self.directory("memory")?, self.is_unified()))
    }

    /// Whether it is one of v2.
    pub(crate) fn is_unified(&self) -> bool {
        self.directories.iter().any(|(name, _)| name.is_empty())
    }

    fn directory(&self, controller: &str) -> Option<&Path> {
        self.directories
            .iter()
            .find(|(name, _)| name.is_empty() || name == controller)
            .map(|(_, directory)| directory.as_path())
    }

    /// Each directory once: v1 controllers may share one.
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
            // Kernels before 5.14 lack the file, and the loop below serves them.
            let killed = self
                .distinct()
                .into_iter()
                .all(|path| fs::write(path.join("cgroup.kill"), "1").is_ok());
            if killed {
                return;
            }
        }
        // Frozen, they can neither fork nor end, so that no number is given to another process between reading and killing.
        self.freeze(true);
        for path in self.distinct() {
            signal_tree(path, rustix::process::Signal::KILL);
        }
        self.freeze(false);
    }

    /// Sends a signal to every process in it and below.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        self.freeze(true);
        if let Some(path) = self.directory("pids") {
            signal_tree(path, signal);
        }
        self.freeze(false);
    }

    /// The processes in it and below, as this process's pid namespace numbers them, in ascending order.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        if let Some(path) = self.directory("pids") {
            list_tree(path, &mut pids);
        }
        pids.sort_unstable();
        pids
    }

    /// Freezes all in it, or lets it go on; waits until that is so.
    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<(), Error> {
        let deadline = Instant::now() + DESTROY_PATIENCE;
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
                    reason: "the kernel did not do it in time".into(),
                });
            }
            pause();
        }
    }

    /// Whether all in it stands still.
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

    /// Failing to freeze only means another round.
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

/// Whether the kernel can keep containers of v2 cgroups to device rules (`BPF_PROG_TYPE_CGROUP_DEVICE`); why not, otherwise.
/// v1 has a controller for that.
pub fn try_device_filter() -> io::Result<()> {
    devices::try_filter()
}

/// Removes the directory `path`, which is meant as for containers, in each hierarchy, if it is empty.
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

/// A path of plain names, below its base.
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

/// Makes a directory of v1, and takes one that is there for what an earlier container left.
fn make_anew(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if is_absent(&error) => make(path),
        Err(_) => {
            remove_tree(path)?;
            make(path)
        }
    }
}

/// Another container's cleaning up may remove a parent just made: then it is made again.
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

/// Most have nothing below: that is looked at only where they cannot be removed.
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
    // 0 stands for a process outside of our pid namespace, which we cannot reach.
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

/// The kernel tells nobody when a cgroup becomes removable on v1: it has to be asked again.
fn pause() {
    let short = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    rustix::event::poll(&mut [], Some(&short)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for bad in ["", "/", "..", "a/../b", "../x", "./../x"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        assert_eq!(checked("/tucano/x").unwrap(), Path::new("tucano/x"));
    }
}
