//! Removes the cgroups of agents on virtual hosts when a host's power is cut. They belong to the machine, so unlike everything
//! else of a host they do not vanish with its namespaces.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::Error;

/// Time limit for a cgroup to become empty: a killed process leaves it asynchronously.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Removes each cgroup below the caller's own whose name begins with `prefix`, recursively and in every hierarchy. Their
/// processes must have ended.
///
/// # Errors
/// A cgroup cannot be removed.
pub fn remove(prefix: &str) -> Result<(), Error> {
    remove_below(&own()?, prefix)
}

/// The directories of the caller's own cgroup, one for each mounted hierarchy (cgroups(7)).
///
/// # Errors
/// A file below /proc cannot be read.
pub fn own() -> Result<Vec<PathBuf>, Error> {
    let read = |path: &'static str| fs::read_to_string(path).map_err(Error::file("read", path));
    Ok(directories(
        &read("/proc/self/cgroup")?,
        &read("/proc/self/mountinfo")?,
    ))
}

pub(crate) fn remove_below(parents: &[PathBuf], prefix: &str) -> Result<(), Error> {
    for parent in parents {
        let children = match fs::read_dir(parent) {
            Ok(children) => children,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::file("list", parent)(error)),
        };
        for child in children.flatten() {
            let named = child
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(prefix));
            if named && child.path().is_dir() {
                remove_tree(&child.path())?;
            }
        }
    }
    Ok(())
}

/// Removes the cgroup of exactly this name below each parent; a missing one is no error.
pub(crate) fn remove_named(parents: &[PathBuf], name: &str) -> Result<(), Error> {
    let cgroups = parents.iter().map(|parent| parent.join(name));
    cgroups
        .filter(|cgroup| cgroup.is_dir())
        .try_for_each(|cgroup| remove_tree(&cgroup))
}

/// Removes a cgroup and its descendants, deepest first. A cgroup's files vanish with it.
fn remove_tree(cgroup: &Path) -> Result<(), Error> {
    let children = fs::read_dir(cgroup).map_err(Error::file("list", cgroup))?;
    for child in children.flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&child.path())?;
        }
    }
    remove_when_empty(cgroup).map_err(Error::file("remove the cgroup", cgroup))
}

fn remove_when_empty(cgroup: &Path) -> io::Result<()> {
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                pause();
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            result => return result,
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the kernel has no event for the condition that is polled"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Resolves the paths of `/proc/self/cgroup` against the mount points of their hierarchies.
fn directories(cgroup: &str, mountinfo: &str) -> Vec<PathBuf> {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
    let mut found = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let mount = mounts.iter().find(|mount| mount.serves(controllers));
        found.extend(mount.and_then(|mount| mount.resolve(path)));
    }
    found
}

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    unified: bool,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// One line of proc_pid_mountinfo(5).
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let kind = right.next()?;
        let options = right.nth(1)?;
        (kind == "cgroup" || kind == "cgroup2").then_some(Self {
            root: left.next()?,
            point: left.next()?,
            unified: kind == "cgroup2",
            options,
        })
    }

    fn serves(&self, controllers: &str) -> bool {
        if controllers.is_empty() {
            return self.unified;
        }
        let has = |controller| self.options.split(',').any(|option| option == controller);
        !self.unified && controllers.split(',').all(has)
    }

    fn resolve(&self, path: &str) -> Option<PathBuf> {
        let inside = Path::new(path).strip_prefix(self.root).ok()?;
        Some(Path::new(self.point).join(inside))
    }
}

#[cfg(test)]
mod tests;
