//! Why a volume cannot be used.

use std::{io, path::PathBuf};

use tucano_api::{
    ids::{ProcessId, VolumeId},
    units::Bytes,
};

/// Why a volume cannot be created, used, grown or removed. Each is a sentence for the report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory of the volumes is another one than before, such as the mount point of a file system that is not mounted.
    #[error(
        "the directory of the volumes, {0}, is not the one that this node had: is its file system mounted?"
    )]
    PlaceMissing(PathBuf),
    /// The volume was on this node, and is not in the directory of the volumes.
    #[error("volume {id} is not where it was, {directory}: is its file system mounted?")]
    Missing {
        /// Which volume.
        id: VolumeId,
        /// Its directory.
        directory: PathBuf,
    },
    /// The volume has to exist already, and this node has none of the name.
    #[error("volume {0} is not on this node, and it is not a new one: it is not created again")]
    NeverHere(VolumeId),
    /// Another volume of the same name is in its place.
    #[error(
        "volume {id} here is another one: it has instance {found}, and instance {wanted} is wanted. It stays untouched"
    )]
    OtherInstance {
        /// Which volume.
        id: VolumeId,
        /// The instance that is here.
        found: u64,
        /// The instance that is wanted.
        wanted: u64,
    },
    /// Another volume of its name is where it is to be.
    #[error("another volume {0} is on this node: remove it first")]
    InPlace(VolumeId),
    /// Another worker asks for it without the controller's consent.
    #[error("volume {0} of this instance is not for this worker")]
    NotExported(VolumeId),
    /// It belongs to another cluster.
    #[error("volume {0} here is of another cluster: it stays untouched")]
    OtherCluster(VolumeId),
    /// What is mounted is not the volume.
    #[error("volume {id}: its file system has no identity, or that of another volume: {detail}")]
    Unidentified {
        /// Which volume.
        id: VolumeId,
        /// What is wrong.
        detail: String,
    },
    /// Its size would not be enforced.
    #[error("volume {id}: its size is enforced by a project quota: {reason}")]
    NotEnforced {
        /// Which volume.
        id: VolumeId,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// Its directory does not belong to its project, such as after a copy to another disk.
    #[error(
        "volume {id}: {directory} belongs to project {found} instead of {project}, which limits it: run `chattr -R +P -p {project} \
         {directory}` on the node"
    )]
    OtherProject {
        /// Which volume.
        id: VolumeId,
        /// Its directory.
        directory: PathBuf,
        /// The project of the directory.
        found: u32,
        /// The project of the volume.
        project: u32,
    },
    /// The file system of the volumes takes no writes.
    #[error(
        "volume {0}: the file system that it is on is read-only: see the kernel's log on the node"
    )]
    ReadOnly(VolumeId),
    /// A container still has it.
    #[error("volume {id} is in use by {process}")]
    InUse {
        /// Which volume.
        id: VolumeId,
        /// The process that has it.
        process: ProcessId,
    },
    /// It is being created.
    #[error("volume {0} is being created")]
    BeingCreated(VolumeId),
    /// A backup reads it.
    #[error("volume {0} is being backed up")]
    BeingRead(VolumeId),
    /// It is being removed.
    #[error("volume {0} is being removed")]
    BeingRemoved(VolumeId),
    /// The disk is full.
    #[error("there is no room for volume {id} of {size} in {place}: {free} are free for volumes")]
    NoRoom {
        /// Which volume.
        id: VolumeId,
        /// Its size, or by how much it grows.
        size: Bytes,
        /// The directory of the volumes.
        place: PathBuf,
        /// What is free there, less the reserve.
        free: Bytes,
    },
    /// The image has more at the path than fits.
    #[error(
        "volume {id}: what the image has at {path} does not fit into {size}: make it larger by `size`"
    )]
    ImageDoesNotFit {
        /// Which volume.
        id: VolumeId,
        /// The path in the image.
        path: String,
        /// The size of the volume.
        size: Bytes,
    },
    /// The image has something else than a directory at the path.
    #[error(
        "volume {id}: the image has something at {path} that is not a directory: write another `path`"
    )]
    NotADirectory {
        /// Which volume.
        id: VolumeId,
        /// The path in the image.
        path: String,
    },
    /// The file system is damaged.
    #[error(
        "volume {id}: its file system is damaged and cannot be repaired by itself: run `e2fsck {image}` on the node: {detail}"
    )]
    Damaged {
        /// Which volume.
        id: VolumeId,
        /// The file that holds the file system.
        image: PathBuf,
        /// The output of the check.
        detail: String,
    },
    /// A program that an agent has started still works on the file.
    #[error(
        "another program works on {0}, such as one that an earlier agent has started: the volume is used when it has ended"
    )]
    Locked(PathBuf),
    /// A program is missing.
    #[error("{program} is missing on this node: install the package {package}")]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// A program failed.
    #[error("{program} failed: {detail}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it wrote.
        detail: String,
    },
    /// The kernel does not let the agent resize a file system in use.
    #[error(
        "a volume in use cannot grow on this node, where the agent lacks CAP_SYS_RESOURCE: it grows when its process starts again"
    )]
    CannotGrowInUse,
    /// A file operation failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Adds what was tried to the errors of file operations.
pub(super) trait Attempt<T> {
    fn attempt(self, what: &'static str, path: &std::path::Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, what: &'static str, path: &std::path::Path) -> Result<T, Error> {
        self.map_err(|error| Error::Io {
            what,
            path: path.to_owned(),
            source: error.into(),
        })
    }
}
