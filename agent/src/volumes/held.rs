//! Volumes that a backup reads.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use tucano_api::{
    agent::VolumeInstance,
    ids::{ProcessId, VolumeId},
};

use super::{
    Volumes,
    error::{Attempt, Error},
};

/// A volume that stays mounted, and is not removed, until this is dropped. A process may have it meanwhile.
#[derive(Debug)]
pub struct Held {
    volumes: Arc<Volumes>,
    id: VolumeId,
    data: PathBuf,
}

impl Volumes {
    /// Holds a volume, which is mounted for that.
    ///
    /// # Errors
    /// It is not here, or cannot be used, or is being removed.
    pub fn hold(self: &Arc<Self>, volume: &VolumeInstance) -> Result<Held, Error> {
        let id = volume.id.clone();
        self.state().claims.hold(&id)?;
        let mut held = Held {
            volumes: Arc::clone(self),
            id,
            data: PathBuf::new(),
        };
        let lock = self.lock_of(&volume.id);
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_place()?;
        let identity = self.find(volume)?;
        let identity = identity.ok_or_else(|| self.missing(&volume.id))?;
        self.attach(&identity)?;
        let data = self.backing(&identity).root().data();
        held.data = data.canonicalize().attempt("examine", &data)?;
        Ok(held)
    }
}

impl Held {
    /// The directory that containers have of it.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// How often it was claimed: while that stays the same, no process was started with it.
    pub fn count(&self) -> u64 {
        self.volumes.claims().count(&self.id)
    }

    /// The process that has it.
    pub fn holder(&self) -> Option<ProcessId> {
        self.volumes.claims().holder(&self.id).cloned()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.volumes.claims().release_hold(&self.id);
    }
}
