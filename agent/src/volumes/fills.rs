//! Volumes that are being filled, each in a directory of its own until it is whole and the controller wants it.
//!
//! ```text
//!  `….filling/`, formatted ──(manifest)──> copied ──(compared)──> `whole.json` ──(rename)──> a volume of this node
//! ```

use std::{fs::File, io, path::PathBuf, sync::PoisonError};

use tucano_api::{agent::VolumeInstance, ids::VolumeId, volumes::VolumeFill};

use super::{
    Volumes, attach,
    backing::tree,
    create::{self, Content},
    error::{Attempt, Error},
    filesystem,
    place::{Identity, VolumeDir},
    points,
};
use crate::clock::timestamp;

/// How far a fill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Something of its content is missing, or not compared.
    Filling,
    /// It has all of its content.
    Whole,
    /// It is a volume of this node.
    Installed,
}

/// The files of a fill.
#[derive(Debug, Clone)]
pub struct FillFiles {
    /// What the other worker has said that the volume has.
    pub manifest: PathBuf,
    /// Where that is received.
    pub received: PathBuf,
}

impl Volumes {
    /// Creates the directory of a fill with an empty volume, unless it is there. Blocking.
    ///
    /// # Errors
    /// Another volume of its name is on this node, there is no room, or it cannot be created.
    pub fn begin_fill(&self, fill: &VolumeFill) -> Result<Stage, Error> {
        let id = &fill.volume.id;
        let lock = self.lock_of(id);
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_place()?;
        let in_place = self.place.volume(id).identity()?;
        if let Some(identity) = in_place.as_ref().filter(|it| it.volume == fill.volume) {
            // An agent that was killed may not have recorded it.
            self.remember(identity)?;
            return Ok(Stage::Installed);
        }
        let known = self.state().record.volumes.get(id).map(|it| it.instance);
        let other = known.or(in_place.map(|it| it.volume.instance));
        let is_other = other.is_some() && other != fill.replaces;
        if is_other || other.is_none() && self.place.volume(id).0.exists() {
            return Err(Error::InPlace(id.clone()));
        }
        let directory = self.place.filling_volume(id);
        match directory.identity()? {
            Some(found) if found.volume == fill.volume => {}
            _ => {
                // An earlier instance, or what is left of one.
                create::discard(&directory)?;
                self.create_filling(fill, &directory)?;
            }
        }
        Ok(match directory.whole().exists() {
            true => Stage::Whole,
            false => Stage::Filling,
        })
    }

    fn create_filling(&self, fill: &VolumeFill, directory: &VolumeDir) -> Result<(), Error> {
        let identity = Identity {
            volume: fill.volume.clone(),
            cluster: self.state().record.clusters.last().cloned(),
            size: fill.size,
            image: None,
            project: self.backings.new_project(&self.place)?,
            created_at: timestamp(),
        };
        let nothing = Content {
            layers: Vec::new(),
            path: "/".to_owned(),
        };
        let new = self.place.new_volume(&fill.volume.id);
        let backing = self.backings.of(new, &identity);
        create::create(
            &self.place,
            &self.room,
            &*backing,
            &identity,
            &nothing,
            directory,
        )
    }

    /// Mounts a fill; returns the directory of its content. Blocking.
    ///
    /// # Errors
    /// It is not there, or cannot be mounted.
    pub fn mount_fill(&self, volume: &VolumeInstance) -> Result<PathBuf, Error> {
        self.with_fill(volume, |directory, identity| {
            let backing = self.backings.of(directory.clone(), identity);
            attach(&*backing, identity)?;
            Ok(backing.root().data())
        })
    }

    /// Mounts a fill without what earlier attempts have written; returns the directory of its content. Blocking.
    ///
    /// # Errors
    /// It is not there, or cannot be mounted or emptied.
    pub fn mount_empty_fill(&self, volume: &VolumeInstance) -> Result<PathBuf, Error> {
        let content = self.mount_fill(volume)?;
        tree::clear(&content).attempt("empty", &content)?;
        Ok(content)
    }

    /// Writes all of a fill to the disk, and unmounts it: what is read after this comes from the disk. Blocking.
    ///
    /// # Errors
    /// It cannot be written, or is in use.
    pub fn sync_fill(&self, volume: &VolumeInstance) -> Result<(), Error> {
        self.with_fill(volume, |directory, identity| {
            self.settle(directory, identity)
        })
    }

    /// Notes that a fill, which is unmounted, has all of its content. Blocking.
    ///
    /// # Errors
    /// That cannot be stored.
    pub fn set_whole(&self, volume: &VolumeInstance) -> Result<(), Error> {
        self.with_fill(volume, |directory, identity| {
            self.settle(directory, identity)?;
            points::reached("whole");
            super::stored::write(&directory.whole(), identity)
        })
    }

    /// Makes a whole fill a volume of this node. One that takes the place of an earlier volume is exchanged with that, which is removed
    /// then. Blocking.
    ///
    /// # Errors
    /// It is not whole, another volume of its name is there or in use, or the record cannot be stored; the next attempt goes on.
    pub fn install(&self, fill: &VolumeFill) -> Result<(), Error> {
        let volume = &fill.volume;
        let id = &volume.id;
        self.with_fill(volume, |directory, identity| {
            let finished = self.place.volume(id);
            let known = self.state().record.volumes.get(id).map(|it| it.instance);
            let replaced = known.filter(|known| Some(*known) == fill.replaces);
            if replaced.is_none() && (finished.0.exists() || known.is_some()) {
                return Err(Error::InPlace(id.clone()));
            }
            if !directory.whole().exists() {
                let error = io::Error::other("it is not whole");
                return Err(error).attempt("install", &directory.0);
            }
            self.settle(directory, identity)?;
            points::reached("install");
            match replaced {
                Some(_) => self.exchange(directory, &finished, identity)?,
                None => {
                    std::fs::rename(&directory.0, &finished.0).attempt("rename", &directory.0)?;
                    self.place.sync()?;
                    points::reached("record");
                    self.remember(identity)?;
                }
            }
            finished.remove_fill_files()?;
            tracing::info!(%id, instance = volume.instance, "a filled volume is installed");
            Ok(())
        })
    }

    /// Gives a fill the place of the volume before it, of which there is one or the other at any moment, and removes that.
    fn exchange(
        &self,
        directory: &VolumeDir,
        finished: &VolumeDir,
        identity: &Identity,
    ) -> Result<(), Error> {
        let id = &identity.volume.id;
        self.state().claims.begin_removal(id)?;
        let exchanged = || {
            if finished.mount_point().exists() {
                filesystem::detach(&finished.mount_point())?;
            }
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                &directory.0,
                rustix::fs::CWD,
                &finished.0,
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .attempt("exchange", &directory.0)?;
            self.place.sync()?;
            points::reached("record");
            self.remember(identity)
        };
        let exchanged = exchanged();
        self.state().claims.end_removal(id);
        exchanged?;
        // The next agent gives it up, too: it is a fill that is not wanted.
        create::discard(directory)?;
        self.place.sync()
    }

    /// Removes a fill with all that it has; one that is not there is no error. Blocking.
    ///
    /// # Errors
    /// Something of it cannot be removed.
    pub fn discard_fill(&self, volume: &VolumeInstance) -> Result<(), Error> {
        let lock = self.lock_of(&volume.id);
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = self.place.filling_volume(&volume.id);
        if !directory.0.exists() || directory.identity()?.is_some_and(|it| it.volume != *volume) {
            return Ok(());
        }
        create::discard(&directory)?;
        self.place.sync()
    }

    /// The fills that are in the directory of the volumes.
    pub fn fills(&self) -> Vec<VolumeInstance> {
        let ids = self.place.fillings().unwrap_or_default();
        let directories = ids
            .iter()
            .map(|id: &VolumeId| self.place.filling_volume(id));
        let identities = directories.filter_map(|it| it.identity().ok().flatten());
        identities.map(|identity| identity.volume).collect()
    }

    /// Where the manifest of a fill is.
    pub fn fill_files(&self, id: &VolumeId) -> FillFiles {
        let directory = self.place.filling_volume(id);
        FillFiles {
            manifest: directory.manifest(),
            received: directory.received_manifest(),
        }
    }

    /// Writes all of a fill to the disk, and unmounts it where it has a file system of its own.
    fn settle(&self, directory: &VolumeDir, identity: &Identity) -> Result<(), Error> {
        let root = self.backings.of(directory.clone(), identity).root().0;
        let opened = File::open(&root).attempt("open", &root)?;
        rustix::fs::syncfs(&opened).attempt("sync", &root)?;
        drop(opened);
        if identity.project.is_none() {
            filesystem::unmount(&directory.mount_point())?;
            let image = File::open(directory.image()).attempt("open", &directory.image())?;
            image.sync_all().attempt("sync", &directory.image())?;
        }
        Ok(())
    }

    fn with_fill<T>(
        &self,
        volume: &VolumeInstance,
        run: impl FnOnce(&VolumeDir, &Identity) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let lock = self.lock_of(&volume.id);
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_place()?;
        let directory = self.place.filling_volume(&volume.id);
        let identity = directory.identity()?;
        let identity = identity.filter(|it| it.volume == *volume);
        let identity = identity.ok_or_else(|| Error::Missing {
            id: volume.id.clone(),
            directory: directory.0.clone(),
        })?;
        run(&directory, &identity)
    }
}
