//! The room for volumes: what is free where they are, less what the agent needs there for itself.
//!
//! Volumes are allocated in full, or their quota promises them what they do not take yet. One that took the last byte of the agent's own file system would keep the agent from storing the
//! desired set by which it is removed.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use tucano_api::{ids::VolumeId, units::Bytes};

use super::{
    backing,
    error::{Attempt, Error},
    place::Place,
};

/// Largest reserve that is not configured.
const MAX_RESERVE: Bytes = Bytes::mib(1024);

/// The room for volumes.
#[derive(Debug)]
pub(super) struct Room {
    place: Place,
    data_dir: PathBuf,
    /// What volumes leave free; absent: the smaller of 5 % of the file system and [`MAX_RESERVE`].
    reserve: Option<Bytes>,
    /// Held from the look at what is free until it is allocated.
    allocation: Mutex<()>,
}

impl Room {
    pub(super) fn new(place: Place, data_dir: PathBuf, reserve: Option<Bytes>) -> Self {
        Self {
            place,
            data_dir,
            reserve,
            allocation: Mutex::default(),
        }
    }

    /// What volumes may take.
    pub(super) fn free(&self) -> Result<Bytes, Error> {
        self.measure().attempt("examine", &self.place.0)
    }

    /// Runs an allocation of so many bytes for a volume if they are free. One runs at a time.
    pub(super) fn allocate(
        &self,
        id: &VolumeId,
        bytes: Bytes,
        allocate: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let allocation = self.allocation.lock();
        let _one = allocation.unwrap_or_else(PoisonError::into_inner);
        if self.free()? < bytes {
            return Err(self.too_little(id, bytes));
        }
        allocate().map_err(|error| match error {
            Error::Io { source, .. } if is_full(&source) => self.too_little(id, bytes),
            error => error,
        })
    }

    fn too_little(&self, id: &VolumeId, size: Bytes) -> Error {
        Error::NoRoom {
            id: id.clone(),
            size,
            place: self.place.0.clone(),
            free: self.free().unwrap_or_default(),
        }
    }

    fn measure(&self) -> io::Result<Bytes> {
        let found = rustix::fs::statvfs(&self.place.0)?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let device = fs::metadata(&self.place.0)?.dev();
        let is_shared = fs::metadata(&self.data_dir).is_ok_and(|own| own.dev() == device);
        let reserve = match (is_shared, self.reserve) {
            (false, _) => 0,
            (true, Some(reserve)) => reserve.0,
            (true, None) => {
                let total = found.f_blocks.saturating_mul(found.f_frsize);
                MAX_RESERVE.0.min(total / 20)
            }
        };
        let directories = self.place.directories().unwrap_or_default();
        let promised = directories.iter().map(|it| backing::share(it).promised.0);
        let promised = promised.fold(reserve, u64::saturating_add);
        Ok(Bytes(free.saturating_sub(promised)))
    }
}

/// Whether an operation failed because a file system, or somebody's part of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
