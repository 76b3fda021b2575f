//! Growth of volumes: the file first, then its file system.

use std::sync::PoisonError;

use tucano_api::{agent::VolumeInstance, units::Bytes};

use super::{Volumes, error::Error, filesystem, place::Identity};

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
        self.mount(&identity)?;
        self.grow_mounted(&identity, size)
    }

    /// Grows a volume before its process starts, unmounted where nobody else has it.
    pub(super) fn grow_unused(&self, identity: &Identity, size: Bytes) -> Result<(), Error> {
        if size <= identity.size {
            return Ok(());
        }
        let directory = self.place.volume(&identity.volume.id);
        // Somebody may look at it from the node.
        filesystem::unmount(&directory.mount_point()).ok();
        if filesystem::has_device(&directory.image())? {
            self.mount(identity)?;
            return self.grow_mounted(identity, size);
        }
        self.enlarge(identity, size)?;
        filesystem::extend_unused(&directory.image())?;
        self.note_size(identity, size)
    }

    /// Grows a volume while its process uses it.
    fn grow_mounted(&self, identity: &Identity, size: Bytes) -> Result<(), Error> {
        if size <= identity.size {
            return Ok(());
        }
        self.enlarge(identity, size)?;
        let directory = self.place.volume(&identity.volume.id);
        filesystem::extend_mounted(&directory.image(), &directory.mount_point())?;
        self.note_size(identity, size)
    }

    /// Makes the file of a volume larger.
    fn enlarge(&self, identity: &Identity, size: Bytes) -> Result<(), Error> {
        let directory = self.place.volume(&identity.volume.id);
        let allocated = directory.allocated();
        let growth = Bytes(size.0.saturating_sub(allocated.0.max(identity.size.0)));
        self.room.allocate(&identity.volume.id, growth, || {
            filesystem::enlarge(&directory.image(), size)
        })
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
