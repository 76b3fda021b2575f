//! Removal of volumes. A directory that is renamed is a volume that is removed, whatever happens to the agent afterwards.

use std::{fs, sync::PoisonError};

use tucano_api::agent::VolumeInstance;

use super::{
    Volumes, backing,
    error::{Attempt, Error},
    filesystem,
    place::VolumeDir,
};

impl Volumes {
    /// Removes a volume of exactly this instance that no process has. One that is not here, and cannot be soon, is no error.
    ///
    /// # Errors
    /// It is in use, or a process may be about to create it; its directory is not reachable, or something of it cannot be removed.
    pub fn remove(&self, volume: &VolumeInstance) -> Result<(), Error> {
        let id = &volume.id;
        if !self.begin_removal(volume)? {
            return Ok(());
        }
        let lock = self.lock_of(id);
        let renamed = {
            let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.remove_locked(volume)
        };
        self.state().claims.end_removal(id);
        // A new one of its name may be created meanwhile.
        self.finish_removal(&renamed?)?;
        tracing::info!(%id, "removed a volume");
        Ok(())
    }

    /// Whether there is a volume to remove, which is claimed then.
    fn begin_removal(&self, volume: &VolumeInstance) -> Result<bool, Error> {
        let id = &volume.id;
        let mut state = self.state();
        if state.creating.contains_key(id) {
            return Err(Error::BeingCreated(id.clone()));
        }
        let known = state.record.volumes.get(id).map(|it| it.instance);
        let is_unknown_in_use = known.is_none() && state.claims.holder(id).is_some();
        if is_unknown_in_use || known == Some(volume.instance) {
            return state.claims.begin_removal(id).map(|()| true);
        }
        Ok(false)
    }

    /// Renames a volume, and forgets it if that can be stored.
    fn remove_locked(&self, volume: &VolumeInstance) -> Result<VolumeDir, Error> {
        self.check_place()?;
        let id = &volume.id;
        self.find(volume)?.ok_or_else(|| self.missing(id))?;
        let (directory, removed) = (self.place.volume(id), self.place.removed_volume(id));
        filesystem::detach(&directory.mount_point())?;
        // What is left of an earlier one of its name.
        if removed.0.exists() {
            self.finish_removal(&removed)?;
        }
        fs::rename(&directory.0, &removed.0).attempt("rename", &directory.0)?;
        self.place.sync()?;
        self.forget(volume).ok();
        Ok(removed)
    }

    /// Removes a volume whose directory is renamed already, and forgets it. Its space is freed first: the record may need it.
    pub(super) fn finish_removal(&self, directory: &VolumeDir) -> Result<(), Error> {
        filesystem::detach(&directory.mount_point())?;
        let identity = directory.identity()?;
        backing::remove(directory)?;
        let forgotten = identity.map_or(Ok(()), |it| self.forget(&it.volume));
        if let Err(error) = forgotten {
            // By its directory the next agent knows that the volume is removed.
            tracing::warn!(%error, directory = %directory.0.display(), "the record still has a removed volume");
            return Ok(());
        }
        directory.remove()
    }

    /// The same at the agent's start, which does not wait until a tree of many files is gone.
    pub(super) fn resume_removal(&self, directory: &VolumeDir) -> Result<(), Error> {
        if !directory.tree().exists() {
            return self.finish_removal(directory);
        }
        let identity = directory.identity()?;
        let forgotten = identity.map_or(Ok(()), |it| self.forget(&it.volume));
        let directory = directory.clone();
        std::thread::spawn(move || {
            let removed = backing::remove(&directory).and(forgotten);
            // As long as the record has it, the directory says that it is removed.
            if let Err(error) = removed.and_then(|()| directory.remove()) {
                tracing::warn!(%error, "cannot remove what is left of a volume");
            }
        });
        Ok(())
    }

    /// Forgets a volume that is removed, even if that cannot be stored.
    fn forget(&self, volume: &VolumeInstance) -> Result<(), Error> {
        let mut state = self.state();
        let known = state.record.volumes.get(&volume.id);
        if known.is_some_and(|known| known.instance == volume.instance) {
            state.record.volumes.remove(&volume.id);
            state.problems.remove(&volume.id);
            state.loads.remove(&volume.id);
        }
        state.record.store(&self.record_file)
    }
}
