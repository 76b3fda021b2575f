//! Growth of volumes.

use std::sync::PoisonError;

use tucano_api::{agent::VolumeInstance, units::Bytes};

use super::{Volumes, error::Error, place::Identity};

impl Volumes {
    /// Makes a volume in use larger. A size that is not larger than the present one changes nothing.
    ///
    /// # Errors
    /// There is no room, or the file system cannot grow; the volume stays as it is.
    pub fn grow(&self, volume: &VolumeInstance, size: Bytes) -> Result<(), Error> {
        let lock = self.lock_of(&volume.id);
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = self.find(volume)?;
        let identity = identity.ok_or_else(|| self.missing(&volume.id))?;
        self.attach(&identity)?;
        if size <= identity.size {
            return Ok(());
        }
        self.backing(&identity).grow(&identity, size, &self.room)?;
        self.note_size(&identity, size)
    }

    /// Grows a volume before its process starts.
    pub(super) fn grow_unused(&self, identity: &Identity, size: Bytes) -> Result<(), Error> {
        if size <= identity.size {
            return Ok(());
        }
        let backing = self.backing(identity);
        backing.grow_unused(identity, size, &self.room)?;
        self.note_size(identity, size)
    }

    fn note_size(&self, identity: &Identity, size: Bytes) -> Result<(), Error> {
        let grown = Identity {
            size,
            ..identity.clone()
        };
        tracing::info!(id = %grown.volume.id, %size, "a volume has grown");
        let directory = self.place.volume(&grown.volume.id);
        directory.store_identity(&grown)?;
        self.remember(&grown)
    }
}
