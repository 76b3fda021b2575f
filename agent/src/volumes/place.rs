//! The directory of the volumes, and what is in it:
//!
//! - `place.json`: which directory it is, so that an empty one is not taken for it;
//! - `<service>.<name>.<slot>/`: a volume: `volume.json`, its [`Identity`]; `load.json`, what was loaded into it;
//!   `image.ext4`, its file system, and `mount/`, where that is
//!   mounted; or `tree/`, which has a project quota. In both are the [`Identity`] again, and `data/`, which containers have;
//! - `….new/`: a volume that is being created; `….removed/`: one that is being removed;
//! - `….filling/`: one that gets its content from elsewhere: also `manifest`, and `whole.json` once it has all of it.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tucano_api::{
    agent::VolumeInstance,
    ids::{ClusterId, Digest, VolumeId},
    units::{Bytes, Timestamp},
};

use super::{
    error::{Attempt, Error},
    load::StoredLoad,
    stored,
};
use crate::files::{protect, sync_directory};

/// Largest identity that is read.
const MAX_BYTES: u64 = 64 << 10;
/// Ends of the names of directories that are not volumes yet, or no longer.
const NEW: &str = ".new";
const REMOVED: &str = ".removed";
const FILLING: &str = ".filling";
const PLACE: &str = "place.json";

/// Which volume this is: stored beside its file system, and in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Its name, and which one of that name.
    #[serde(flatten)]
    pub(super) volume: VolumeInstance,
    /// The cluster that it was created for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<ClusterId>,
    /// The size that is enforced.
    pub(super) size: Bytes,
    /// The project that its files are counted for; absent where it has a file system of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) project: Option<u32>,
    /// The image whose content it has got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<Digest>,
    /// When it was created.
    pub(super) created_at: Timestamp,
}

/// Which directory of volumes this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlaceId {
    pub(super) id: String,
}

/// The directory of the volumes.
#[derive(Debug, Clone)]
pub(super) struct Place(pub(super) PathBuf);

/// The root of a volume's own tree.
#[derive(Debug, Clone)]
pub(super) struct Root(pub(super) PathBuf);

/// The directory of one volume.
#[derive(Debug, Clone)]
pub(super) struct VolumeDir(pub(super) PathBuf);

impl Place {
    /// The directory of a volume.
    pub(super) fn volume(&self, id: &VolumeId) -> VolumeDir {
        VolumeDir(self.0.join(name_of(id)))
    }

    /// The directory in which a volume is created.
    pub(super) fn new_volume(&self, id: &VolumeId) -> VolumeDir {
        VolumeDir(self.0.join(name_of(id) + NEW))
    }

    /// The directory of a volume that is being removed.
    pub(super) fn removed_volume(&self, id: &VolumeId) -> VolumeDir {
        VolumeDir(self.0.join(name_of(id) + REMOVED))
    }

    /// The directory of a volume that is being filled.
    pub(super) fn filling_volume(&self, id: &VolumeId) -> VolumeDir {
        VolumeDir(self.0.join(name_of(id) + FILLING))
    }

    /// Which directory it is, if it has volumes or had some.
    pub(super) fn id(&self) -> Result<Option<PlaceId>, Error> {
        stored::read(&self.0.join(PLACE), MAX_BYTES)
    }

    /// Creates it, readable by root only, and says which one it is.
    pub(super) fn create(&self) -> Result<PlaceId, Error> {
        fs::create_dir_all(&self.0).attempt("create", &self.0)?;
        protect(&self.0, 0o700).attempt("protect", &self.0)?;
        if let Some(id) = self.id()? {
            return Ok(id);
        }
        let id = PlaceId {
            id: uuid::Uuid::new_v4().to_string(),
        };
        stored::write(&self.0.join(PLACE), &id)?;
        Ok(id)
    }

    /// The volumes in it: the directories that are named as volumes are.
    pub(super) fn volumes(&self) -> Result<Vec<VolumeId>, Error> {
        let mut ids: Vec<_> = self
            .names()?
            .iter()
            .filter_map(|name| id_of(name))
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// The volumes that are being filled.
    pub(super) fn fillings(&self) -> Result<Vec<VolumeId>, Error> {
        let names = self.names()?;
        let names = names.iter().filter_map(|name| name.strip_suffix(FILLING));
        Ok(names.filter_map(id_of).collect())
    }

    /// The directories of volumes that were not created, or not removed, to the end: the latter first.
    pub(super) fn unfinished(&self) -> Result<(Vec<VolumeDir>, Vec<VolumeDir>), Error> {
        let names = self.names()?;
        let with = |end: &str| {
            let of_volumes = names.iter().filter(|name| {
                name.strip_suffix(end)
                    .is_some_and(|name| id_of(name).is_some())
            });
            of_volumes
                .map(|name| VolumeDir(self.0.join(name)))
                .collect()
        };
        Ok((with(REMOVED), with(NEW)))
    }

    /// The directories of volumes that are there or being created.
    pub(super) fn directories(&self) -> Result<Vec<VolumeDir>, Error> {
        let (_, mut all) = self.unfinished()?;
        all.extend(self.volumes()?.iter().map(|id| self.volume(id)));
        Ok(all)
    }

    /// Makes the names in it durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        sync_directory(&self.0).attempt("sync", &self.0)
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.attempt("list", &self.0)?,
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        Ok(names.flat_map(|name| name.into_string()).collect())
    }
}

impl Root {
    /// What containers have of it.
    pub(super) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// The identity in it.
    pub(super) fn identity(&self) -> Result<Option<Identity>, Error> {
        stored::read(&self.0.join(IDENTITY), MAX_BYTES)
    }

    /// Stores the identity in it.
    pub(super) fn store_identity(&self, identity: &Identity) -> Result<(), Error> {
        stored::write(&self.0.join(IDENTITY), identity)
    }
}

impl VolumeDir {
    /// The name of [`Self::tree`].
    pub(super) const TREE: &std::ffi::CStr = c"tree";

    /// The file that has its file system.
    pub(super) fn image(&self) -> PathBuf {
        self.0.join("image.ext4")
    }

    /// Where that is mounted.
    pub(super) fn mount_point(&self) -> PathBuf {
        self.0.join("mount")
    }

    /// The directory that has a project quota.
    pub(super) fn tree(&self) -> PathBuf {
        self.0.join("tree")
    }

    /// What another worker has said that it has, while it is filled.
    pub(super) fn manifest(&self) -> PathBuf {
        self.0.join("manifest")
    }

    /// Where that is received.
    pub(super) fn received_manifest(&self) -> PathBuf {
        self.0.join("manifest.received")
    }

    /// The file that says that it has all of its content.
    pub(super) fn whole(&self) -> PathBuf {
        self.0.join(WHOLE)
    }

    /// Removes what only a fill needs.
    pub(super) fn remove_fill_files(&self) -> Result<(), Error> {
        let unfinished = self.0.join(format!("{WHOLE}.new"));
        for file in [
            self.received_manifest(),
            self.manifest(),
            unfinished,
            self.whole(),
        ] {
            absent(fs::remove_file(&file)).attempt("remove", &file)?;
        }
        Ok(())
    }

    /// Where the image's tree is mounted while the volume is created.
    pub(super) fn image_root(&self) -> PathBuf {
        self.0.join("image-root")
    }

    /// Creates it.
    pub(super) fn create(&self) -> Result<(), Error> {
        self.create_private(&self.0)?;
        self.create_private(&self.image_root())
    }

    /// Creates it, or a directory in it, for root only.
    pub(super) fn create_private(&self, directory: &Path) -> Result<(), Error> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder.create(directory).attempt("create", directory)
    }

    /// Its identity as the directory of the volumes has it.
    pub(super) fn identity(&self) -> Result<Option<Identity>, Error> {
        stored::read(&self.0.join(IDENTITY), MAX_BYTES)
    }

    /// Stores its identity beside its file system.
    pub(super) fn store_identity(&self, identity: &Identity) -> Result<(), Error> {
        stored::write(&self.0.join(IDENTITY), identity)
    }

    /// What was loaded into it.
    pub(super) fn load(&self) -> Result<Option<StoredLoad>, Error> {
        stored::read(&self.0.join(LOAD), MAX_BYTES)
    }

    /// Stores what is loaded into it.
    pub(super) fn store_load(&self, load: &StoredLoad) -> Result<(), Error> {
        stored::write(&self.0.join(LOAD), load)
    }

    /// The bytes that its file takes on the disk.
    pub(super) fn allocated(&self) -> Bytes {
        let blocks = fs::metadata(self.image()).map_or(0, |metadata| metadata.blocks());
        Bytes(blocks.saturating_mul(512))
    }

    /// Removes its file system, unmounted, and so frees its space.
    pub(super) fn remove_image(&self) -> Result<(), Error> {
        let image = self.image();
        absent(fs::remove_file(&image)).attempt("remove", &image)
    }

    /// Removes it, unmounted and without what held the volume: whatever is mounted there by whomever stays untouched.
    pub(super) fn remove(&self) -> Result<(), Error> {
        self.remove_fill_files()?;
        // The identity goes last.
        for name in [LOAD, IDENTITY] {
            for file in [self.0.join(format!("{name}.new")), self.0.join(name)] {
                absent(fs::remove_file(&file)).attempt("remove", &file)?;
            }
        }
        for directory in [&self.image_root(), &self.mount_point(), &self.0] {
            absent(fs::remove_dir(directory)).attempt("remove", directory)?;
        }
        Ok(())
    }
}

const IDENTITY: &str = "volume.json";
const WHOLE: &str = "whole.json";
const LOAD: &str = "load.json";

/// The directory's name of a volume. Names of services and volumes have no dots.
fn name_of(id: &VolumeId) -> String {
    id.to_string().replace('/', ".")
}

fn id_of(name: &str) -> Option<VolumeId> {
    (!name.contains('/')).then(|| name.replace('.', "/").parse().ok())?
}

fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_directories_are_those_of_volumes() {
        let id: VolumeId = "db/data/12".parse().unwrap();
        assert_eq!(name_of(&id), "db.data.12");
        assert_eq!(id_of("db.data.12"), Some(id));
        for other in [
            "place.json",
            "db.data.12.new",
            "db.data.0",
            "..",
            "a.b",
            ".new",
        ] {
            assert_eq!(id_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_directory_is_private_and_keeps_its_id() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place(directory.path().join("volumes"));
        assert!(place.id().unwrap().is_none());
        let id = place.create().unwrap();
        assert_eq!(place.create().unwrap(), id);
        let mode = fs::metadata(&place.0).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }
}
