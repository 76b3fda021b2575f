//! A volume in a file system of its own, in a file of its size.

use tucano_api::{agent::Enforcement, units::Bytes};

use super::{
    super::{
        error::{Attempt, Error},
        filesystem,
        health::{self, Mounts},
        place::{Identity, Root, VolumeDir},
        room::Room,
    },
    Backing,
};

/// The directory of such a volume.
#[derive(Debug)]
pub(super) struct LoopFile(pub(super) VolumeDir);

impl LoopFile {
    fn is_mounted(&self) -> Result<bool, Error> {
        let mount_point = self.0.mount_point();
        filesystem::is_mounted(&mount_point).attempt("examine", &mount_point)
    }

    /// Makes the file larger.
    fn enlarge(&self, identity: &Identity, size: Bytes, room: &Room) -> Result<(), Error> {
        let allocated = self.0.allocated();
        let growth = Bytes(size.0.saturating_sub(allocated.0.max(identity.size.0)));
        room.allocate(&identity.volume.id, growth, || {
            filesystem::enlarge(&self.0.image(), size)
        })
    }
}

impl Backing for LoopFile {
    fn enforcement(&self) -> Enforcement {
        Enforcement::LoopFile
    }

    fn root(&self) -> Root {
        Root(self.0.mount_point())
    }

    fn create(&self, identity: &Identity, room: &Room) -> Result<(), Error> {
        self.0.create_private(&self.0.mount_point())?;
        self.0.store_identity(identity)?;
        let (image, size) = (self.0.image(), identity.size);
        room.allocate(&identity.volume.id, size, || {
            filesystem::create_file(&image, size)
        })?;
        filesystem::format(&image)
    }

    fn open_new(&self) -> Result<(), Error> {
        filesystem::mount(&self.0.image(), &self.0.mount_point())
    }

    fn close_new(&self) -> Result<(), Error> {
        // Programs that are started meanwhile have copies of this one's descriptors for a moment; everything is synced.
        filesystem::detach(&self.0.mount_point())?;
        filesystem::sync(&self.0.image())
    }

    fn attach(&self, identity: &Identity) -> Result<(), Error> {
        if self.is_mounted()? {
            return Ok(());
        }
        let image = self.0.image();
        // A volume with holes is better than none: it may lose writes only if the disk stays full.
        if let Err(error) = filesystem::refill(&image) {
            let id = &identity.volume.id;
            tracing::warn!(%id, %error, "a volume's file has holes: make room on the disk");
        }
        let checked = filesystem::check_unused(&image)?;
        checked.map_err(|detail| Error::Damaged {
            id: identity.volume.id.clone(),
            image: image.clone(),
            detail,
        })?;
        filesystem::mount(&image, &self.0.mount_point())
    }

    /// A file system that had errors is unmounted: it is checked before it is mounted again.
    fn repair(&self) -> Result<(), Error> {
        if !self.is_mounted()? {
            return Ok(());
        }
        let mount_point = self.0.mount_point();
        let is_damaged =
            Mounts::read().and_then(|mounts| health::is_damaged(&mount_point, &mounts));
        if is_damaged.attempt("examine", &mount_point)? {
            tracing::warn!(mount_point = %mount_point.display(), "a volume had errors and is checked");
            filesystem::unmount(&mount_point)?;
        }
        Ok(())
    }

    /// Unmounted, where nobody else has it.
    fn grow_unused(&self, identity: &Identity, size: Bytes, room: &Room) -> Result<(), Error> {
        // Somebody may look at it from the node.
        filesystem::unmount(&self.0.mount_point()).ok();
        if filesystem::has_device(&self.0.image())? {
            self.attach(identity)?;
            return self.grow(identity, size, room);
        }
        self.enlarge(identity, size, room)?;
        filesystem::extend_unused(&self.0.image())
    }

    fn grow(&self, identity: &Identity, size: Bytes, room: &Room) -> Result<(), Error> {
        self.enlarge(identity, size, room)?;
        filesystem::extend_mounted(&self.0.image(), &self.0.mount_point())
    }

    /// Allocates the holes that the kernel has made in the file, such as by `fstrim`.
    fn maintain(&self, _: &Identity) -> Result<(), Error> {
        let image = self.0.image();
        match filesystem::has_holes(&image) {
            true => filesystem::refill(&image),
            false => Ok(()),
        }
    }

    fn used(&self) -> Option<Bytes> {
        let is_mounted = self.is_mounted().unwrap_or(false);
        is_mounted.then(|| filesystem::used(&self.0.mount_point()).ok())?
    }

    fn fault(&self, identity: &Identity, mounts: Option<&Mounts>) -> Option<String> {
        let mounts = mounts.filter(|_| self.is_mounted().unwrap_or(false))?;
        let is_damaged = health::is_damaged(&self.0.mount_point(), mounts).unwrap_or(false);
        is_damaged.then(|| {
            let id = &identity.volume.id;
            format!(
                "volume {id}: its file system had errors or is read-only: it is checked when its process starts again"
            )
        })
    }
}
