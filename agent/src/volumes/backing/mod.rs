//! What holds a volume and keeps it to its size: a file system in a file, or a directory with a project quota.
//!
//! New volumes are of the second kind where their file system enforces project quotas. A volume never changes its kind.

mod loop_file;
mod project;
pub(super) mod tree;

use tucano_api::{agent::Enforcement, units::Bytes};

use self::{loop_file::LoopFile, project::Project};
use super::{
    error::Error,
    health::Mounts,
    place::{Identity, Place, Root, VolumeDir},
    room::Room,
};

/// What holds a volume. The volume's lock is held for whatever changes it.
pub(super) trait Backing: std::fmt::Debug + Send + Sync {
    /// How it keeps the volume to its size.
    fn enforcement(&self) -> Enforcement;

    /// The root of the volume's tree, while it is [attached](Self::attach).
    fn root(&self) -> Root;

    /// Creates it, empty, in the directory of a new volume, and stores the identity there.
    fn create(&self, identity: &Identity, room: &Room) -> Result<(), Error>;

    /// Makes an empty tree reachable for the present thread, which has a mount namespace of its own.
    fn open_new(&self) -> Result<(), Error>;

    /// Gives that up again; the tree is durable.
    fn close_new(&self) -> Result<(), Error>;

    /// Makes the tree reachable, with the size of the identity enforced.
    fn attach(&self, identity: &Identity) -> Result<(), Error>;

    /// Before the volume's process starts: repairs what can be.
    fn repair(&self) -> Result<(), Error>;

    /// Makes it larger before the volume's process starts.
    fn grow_unused(&self, identity: &Identity, size: Bytes, room: &Room) -> Result<(), Error>;

    /// Makes it larger while it is attached and in use.
    fn grow(&self, identity: &Identity, size: Bytes, room: &Room) -> Result<(), Error>;

    /// Restores what others have changed of it, while it may be in use.
    fn maintain(&self, identity: &Identity) -> Result<(), Error>;

    /// What is written to it, where that is known now.
    fn used(&self) -> Option<Bytes>;

    /// Why its process cannot use it, or could not when it starts again.
    fn fault(&self, identity: &Identity, mounts: Option<&Mounts>) -> Option<String>;
}

/// Where new volumes are, and what may hold them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backings {
    /// Whether containers have user namespaces. A process without one may change the project of its own files.
    pub(super) user_namespaces: bool,
}

impl Backings {
    /// What holds a volume.
    pub(super) fn of(self, directory: VolumeDir, identity: &Identity) -> Box<dyn Backing> {
        match identity.project {
            None => Box::new(LoopFile(directory)),
            Some(id) => Box::new(Project {
                directory,
                id,
                user_namespaces: self.user_namespaces,
            }),
        }
    }

    /// How the sizes of new volumes are enforced.
    pub(super) fn of_new(self, place: &Place) -> Enforcement {
        match project::check(&place.0, self.user_namespaces) {
            Ok(()) => Enforcement::ProjectQuota,
            Err(reason) => {
                tracing::trace!(%reason, "volumes have no project quotas");
                Enforcement::LoopFile
            }
        }
    }

    /// A project for a new volume, where those are limited.
    pub(super) fn new_project(self, place: &Place) -> Result<Option<u32>, Error> {
        match self.of_new(place) {
            Enforcement::LoopFile => Ok(None),
            Enforcement::ProjectQuota => project::new_id(place).map(Some),
        }
    }
}

/// What a volume may take of the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// All of it.
    pub(super) total: Bytes,
    /// What of it is promised to the volume, yet free on the disk.
    pub(super) promised: Bytes,
}

/// What the volume in a directory may take of the disk.
pub(super) fn share(directory: &VolumeDir) -> Share {
    let of_file = directory.allocated();
    if of_file > Bytes(0) {
        return Share {
            total: of_file,
            promised: Bytes(0),
        };
    }
    let Ok(Some(identity)) = directory.identity() else {
        return Share::default();
    };
    identity.project.map_or(Share::default(), |id| {
        let used = project::used(directory, id).unwrap_or_default();
        Share {
            total: identity.size,
            promised: Bytes(identity.size.0.saturating_sub(used.0)),
        }
    })
}

/// Removes what holds the volume in a directory, unmounted, and so frees its space; that may take long.
pub(super) fn remove(directory: &VolumeDir) -> Result<(), Error> {
    directory.remove_image()?;
    project::remove(directory)
}
