//! A volume in a directory whose files are a project of their own, with limits that the file system enforces.
//!
//! A process in a user namespace can change neither the project of a file nor that it is inherited, and has no capability by which
//! ext4 lets it exceed the limits. So this kind needs user namespaces.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use tucano_api::{agent::Enforcement, ids::VolumeId, units::Bytes};
use tucano_oci_runtime::projects::{self, Limits};

use super::{
    super::{
        error::{Attempt, Error},
        health::{self, Mounts},
        place::{Identity, Place, Root, VolumeDir},
        room::Room,
    },
    Backing, tree,
};

/// Bytes of a volume for each of its inodes, as mkfs.ext4(8) has them: one volume cannot use up the inodes of the disk.
const BYTES_PER_INODE: u64 = 16 << 10;
/// The least number of inodes of a volume.
const MIN_INODES: u64 = 1024;
/// Numbers of projects of volumes: above those that people choose.
const IDS: std::ops::RangeInclusive<u32> = 1 << 30..=(1 << 31) - 1;
/// How often a number may turn out to be taken.
const ATTEMPTS: usize = 100;
/// Names of projects (projid(5)).
const NAMED: &str = "/etc/projid";

/// Such a volume.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) directory: VolumeDir,
    /// Its project.
    pub(super) id: u32,
    pub(super) user_namespaces: bool,
}

impl Project {
    fn open(&self) -> Result<File, Error> {
        open(&self.directory.tree())
    }

    /// Whether the size is enforced now.
    fn check_enforced(&self, volume: &VolumeId, directory: &File) -> Result<(), Error> {
        let reason = match projects::are_limited(directory) {
            _ if !self.user_namespaces => NO_USER_NAMESPACES,
            Ok(true) => return Ok(()),
            Ok(false) | Err(_) => {
                "its file system does not enforce project quotas now: mount it with the option prjquota"
            }
        };
        Err(Error::NotEnforced {
            id: volume.clone(),
            reason,
        })
    }

    /// Sets the limits unless they are at least those: a growth that was not recorded stays.
    fn set_limits(&self, directory: &File, size: Bytes) -> Result<(), Error> {
        let path = self.directory.tree();
        let present = projects::quota(directory, self.id).attempt("read the quota of", &path)?;
        let limits = limits(size);
        let holds = |present: u64, wanted: u64| present != 0 && present >= wanted;
        let present = present.limits;
        if holds(present.bytes, limits.bytes) && holds(present.inodes, limits.inodes) {
            return Ok(());
        }
        projects::limit(directory, self.id, limits).attempt("limit", &path)
    }

    fn check_writable(&self, volume: &VolumeId, mounts: Option<&Mounts>) -> Result<(), Error> {
        let path = self.directory.tree();
        match health::is_read_only(&path, mounts).attempt("examine", &path)? {
            true => Err(Error::ReadOnly(volume.clone())),
            false => Ok(()),
        }
    }

    /// Whether the directory belongs to the project: files of another are not limited.
    fn check_project(&self, identity: &Identity, directory: &File) -> Result<(), Error> {
        let path = self.directory.tree();
        let found = projects::of(directory).attempt("read the project of", &path)?;
        if found.id == self.id && found.is_inherited {
            return Ok(());
        }
        Err(Error::OtherProject {
            id: identity.volume.id.clone(),
            directory: path,
            found: found.id,
            project: self.id,
        })
    }

    fn check_usable(&self, identity: &Identity, mounts: Option<&Mounts>) -> Result<File, Error> {
        let directory = self.open()?;
        // Read-only, ext4 enforces nothing either.
        self.check_writable(&identity.volume.id, mounts)?;
        self.check_enforced(&identity.volume.id, &directory)?;
        self.check_project(identity, &directory)?;
        Ok(directory)
    }
}

impl Backing for Project {
    fn enforcement(&self) -> Enforcement {
        Enforcement::ProjectQuota
    }

    fn root(&self) -> Root {
        Root(self.directory.tree())
    }

    fn create(&self, identity: &Identity, room: &Room) -> Result<(), Error> {
        let path = self.directory.tree();
        room.allocate(&identity.volume.id, identity.size, || {
            self.directory.create_private(&path)?;
            let directory = self.open()?;
            projects::set(&directory, self.id).attempt("set the project of", &path)?;
            self.check_project(identity, &directory)?;
            projects::limit(&directory, self.id, limits(identity.size)).attempt("limit", &path)?;
            // From now on its size counts as promised.
            self.directory.store_identity(identity)
        })
    }

    fn open_new(&self) -> Result<(), Error> {
        Ok(())
    }

    /// It was synced with its content.
    fn close_new(&self) -> Result<(), Error> {
        Ok(())
    }

    fn attach(&self, identity: &Identity) -> Result<(), Error> {
        let directory = self.check_usable(identity, None)?;
        self.set_limits(&directory, identity.size)
    }

    fn repair(&self) -> Result<(), Error> {
        Ok(())
    }

    fn grow_unused(&self, identity: &Identity, size: Bytes, room: &Room) -> Result<(), Error> {
        self.grow(identity, size, room)
    }

    fn grow(&self, identity: &Identity, size: Bytes, room: &Room) -> Result<(), Error> {
        let directory = self.check_usable(identity, None)?;
        let growth = Bytes(size.0.saturating_sub(identity.size.0));
        room.allocate(&identity.volume.id, growth, || {
            self.set_limits(&directory, size)
        })
    }

    /// Sets limits that somebody has taken away.
    fn maintain(&self, identity: &Identity) -> Result<(), Error> {
        let directory = self.open()?;
        match projects::are_limited(&directory) {
            Ok(true) => self.set_limits(&directory, identity.size),
            Ok(false) | Err(_) => Ok(()),
        }
    }

    fn used(&self) -> Option<Bytes> {
        used(&self.directory, self.id)
    }

    fn fault(&self, identity: &Identity, mounts: Option<&Mounts>) -> Option<String> {
        let usable = self.check_usable(identity, mounts);
        usable.err().map(|error| error.to_string())
    }
}

const NO_USER_NAMESPACES: &str =
    "without user namespaces, which do not work on this node, its process could leave the quota";

/// Whether new volumes below a directory can have project quotas; if not, why.
pub(super) fn check(place: &Path, user_namespaces: bool) -> Result<(), String> {
    if !user_namespaces {
        return Err(NO_USER_NAMESPACES.to_owned());
    }
    let readable = |error: io::Error| format!("{}: {error}", place.display());
    let directory = File::open(place).map_err(readable)?;
    if !projects::are_limited(&directory).map_err(readable)? {
        return Err("the limits of projects are not enforced".to_owned());
    }
    // Whatever limits it limits volumes in files too, but not those with projects of their own.
    let own = projects::of(&directory).map_err(readable)?;
    if own.id != 0 {
        return Err(format!("the directory belongs to project {}", own.id));
    }
    // Only the node's own root may.
    projects::quota(&directory, 0).map(drop).map_err(readable)
}

/// A number for a project that nothing has: no file, no limit, no name, and no volume here.
pub(super) fn new_id(place: &Place) -> Result<u32, Error> {
    let directory = open(&place.0)?;
    let named = fs::read_to_string(NAMED).unwrap_or_default();
    let ids = place.volumes()?;
    let of_volumes = ids.iter().map(|id| place.volume(id));
    let of_volumes = of_volumes.flat_map(|it| it.identity().ok().flatten());
    let taken: Vec<u32> = of_volumes
        .flat_map(|identity| identity.project)
        .chain(named_ids(&named))
        .collect();
    for _ in 0..ATTEMPTS {
        let id = random_id();
        let quota = projects::quota(&directory, id).attempt("read a quota of", &place.0)?;
        let is_unused = quota == projects::Quota::default();
        if is_unused && !taken.contains(&id) {
            return Ok(id);
        }
    }
    let exhausted = io::Error::other("no unused project was found");
    Err(exhausted).attempt("create a project in", &place.0)
}

/// What is written to the volume in a directory.
pub(super) fn used(directory: &VolumeDir, id: u32) -> Option<Bytes> {
    let tree = File::open(directory.tree()).ok()?;
    let quota = projects::quota(tree, id).ok()?;
    Some(Bytes(quota.used_bytes))
}

/// Removes the tree of a volume and gives its project up; nothing where it is not of this kind.
pub(super) fn remove(directory: &VolumeDir) -> Result<(), Error> {
    let path = directory.tree();
    let identity = directory.identity().ok().flatten();
    let recorded = identity.and_then(|identity| identity.project);
    let id = match File::open(&path) {
        // As much as was created of it.
        Ok(tree) => projects::of(tree).ok().map(|project| project.id),
        Err(_) => None,
    };
    tree::remove(&directory.0, VolumeDir::TREE).attempt("remove all of", &path)?;
    let Some(id) = id.filter(|id| IDS.contains(id)).or(recorded) else {
        return Ok(());
    };
    // The number is never used again by chance.
    let parent = open(&directory.0)?;
    if let Err(error) = projects::limit(&parent, id, Limits::default()) {
        tracing::debug!(%id, %error, "the limits of a removed project stay");
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).attempt("open", path)
}

fn limits(size: Bytes) -> Limits {
    Limits {
        bytes: size.0,
        inodes: (size.0 / BYTES_PER_INODE).max(MIN_INODES),
    }
}

fn random_id() -> u32 {
    let (start, end) = (*IDS.start(), *IDS.end());
    start + (uuid::Uuid::new_v4().as_u128() as u32) % (end - start + 1)
}

/// The numbers of `<name>:<number>` lines.
fn named_ids(text: &str) -> impl Iterator<Item = u32> {
    let numbers = text.lines().filter_map(|line| line.split(':').nth(1));
    numbers.filter_map(|number| number.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_named_projects_are_read() {
        let text = "# comment\nweb:42\nlogs: 7 \nbroken\nname:x\nhuge:99999999999\n";
        assert_eq!(named_ids(text).collect::<Vec<_>>(), [42, 7]);
    }

    #[test]
    fn numbers_are_above_those_that_people_choose() {
        for _ in 0..1000 {
            assert!(IDS.contains(&random_id()));
        }
    }

    #[test]
    fn inodes_are_limited_in_proportion() {
        let expected = |bytes, inodes| Limits { bytes, inodes };
        assert_eq!(limits(Bytes::mib(64)), expected(64 << 20, 4096));
        assert_eq!(limits(Bytes::mib(8)), expected(8 << 20, 1024));
    }

    #[test]
    fn a_directory_without_enforced_quotas_has_none() {
        let directory = tempfile::tempdir().unwrap();
        // The tests' own temporary files may be on a file system that has them.
        let limited = File::open(directory.path()).map(projects::are_limited);
        if !matches!(limited, Ok(Ok(true))) {
            assert!(check(directory.path(), true).is_err());
        }
        assert!(check(directory.path(), false).is_err());
    }
}
