//! Volumes that other workers read. A process that gets such a volume ends the transfers: they never make it wait.

use std::{
    fs::File,
    io,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tucano_api::{agent::VolumeInstance, volumes::VolumeExport};

use super::{
    Volumes,
    error::{Attempt, Error},
};

/// An open transfer of a volume to another worker.
#[derive(Debug)]
pub struct Transfer {
    volumes: Arc<Volumes>,
    volume: VolumeInstance,
    is_ended: Arc<AtomicBool>,
    /// The directory of the volume's content.
    pub root: File,
}

impl Transfer {
    /// Whether the volume is needed here, or the controller does not want the transfer any more.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> io::Result<()> {
        match self.is_ended.load(Ordering::Relaxed) {
            true => Err(io::Error::other("the transfer was ended")),
            false => Ok(()),
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut state = self.volumes.state();
        state.claims.end_transfer(&self.volume.id, &self.is_ended);
    }
}

impl Volumes {
    /// Replaces what other workers may read. Transfers of others end.
    pub fn export(&self, exports: &[VolumeExport]) {
        let mut state = self.state();
        state.exports = exports.to_vec();
        let wanted = |id: &tucano_api::ids::VolumeId| exports.iter().any(|it| it.volume.id == *id);
        state.claims.end_transfers(|id| !wanted(id));
    }

    /// Opens a volume for another worker: only one that the controller lets it read, and that no process has. Blocking.
    ///
    /// # Errors
    /// It may not be read, or cannot be mounted.
    pub fn open_transfer(
        self: &Arc<Self>,
        volume: &VolumeInstance,
        to: &str,
    ) -> Result<Transfer, Error> {
        let lock = self.lock_of(&volume.id);
        let _locked = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ended = {
            let mut state = self.state();
            let mut exports = state.exports.iter();
            if !exports.any(|it| it.volume == *volume && it.to.as_str() == to) {
                return Err(Error::NotExported(volume.id.clone()));
            }
            state.claims.begin_transfer(&volume.id)?
        };
        let opened = self.open_content(volume);
        if opened.is_err() {
            self.state().claims.end_transfer(&volume.id, &is_ended);
        }
        Ok(Transfer {
            root: opened?,
            volumes: Arc::clone(self),
            volume: volume.clone(),
            is_ended,
        })
    }

    fn open_content(&self, volume: &VolumeInstance) -> Result<File, Error> {
        self.check_place()?;
        let identity = self.find(volume)?;
        let identity = identity.ok_or_else(|| self.missing(&volume.id))?;
        self.attach(&identity)?;
        let data = self.backing(&identity).root().data();
        File::open(&data).attempt("open", &data)
    }
}
