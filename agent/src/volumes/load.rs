//! What is loaded into new volumes by commands in their containers. That a load has begun is durable before its first byte: a load
//! that was interrupted has an error, and never runs a second time over what it has left.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};
use tucano_api::{agent::VolumeInstance, units::Bytes, volumes::LoadReport};

use super::{Volumes, error::Error};

/// Why a load that has begun, and of which no end is stored, is not in progress.
const INTERRUPTED: &str = "the agent ended while it was loaded: restore the volume again";

/// `load.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredLoad {
    instance: u64,
    snapshot: String,
    #[serde(default)]
    done: Bytes,
    #[serde(default)]
    loaded: bool,
    #[serde(default)]
    error: Option<String>,
}

/// A load, with the bytes that were loaded so far while it is in progress.
#[derive(Debug, Clone)]
pub(super) struct Load {
    stored: StoredLoad,
    progress: Option<Arc<AtomicU64>>,
}

impl Volumes {
    /// Whether something was loaded into a volume, or is, or could not be.
    pub fn has_load(&self, volume: &VolumeInstance) -> bool {
        self.load_report(volume).is_some()
    }

    /// Notes durably that a load begins. It counts the bytes in `progress`.
    ///
    /// # Errors
    /// That cannot be stored: it must not begin.
    pub fn begin_load(
        &self,
        volume: &VolumeInstance,
        snapshot: &str,
        progress: Arc<AtomicU64>,
    ) -> Result<(), Error> {
        let stored = StoredLoad {
            instance: volume.instance,
            snapshot: snapshot.to_owned(),
            done: Bytes(0),
            loaded: false,
            error: None,
        };
        self.place.volume(&volume.id).store_load(&stored)?;
        let progress = Some(progress);
        let load = Load { stored, progress };
        self.state().loads.insert(volume.id.clone(), load);
        Ok(())
    }

    /// Notes durably how a load has ended.
    ///
    /// # Errors
    /// That cannot be stored: the next agent considers it interrupted.
    pub fn end_load(
        &self,
        volume: &VolumeInstance,
        result: Result<(), String>,
    ) -> Result<(), Error> {
        let ended = {
            let mut state = self.state();
            let load = state.loads.get_mut(&volume.id);
            let Some(load) = load.filter(|load| load.stored.instance == volume.instance) else {
                return Ok(());
            };
            let progress = load.progress.take();
            let done = progress.map_or(0, |done| done.load(Ordering::Relaxed));
            load.stored.done = Bytes(done);
            load.stored.loaded = result.is_ok();
            load.stored.error = result.err();
            load.stored.clone()
        };
        self.place.volume(&volume.id).store_load(&ended)
    }

    /// Reads what an earlier agent has loaded.
    pub(super) fn recall_load(&self, volume: &VolumeInstance) {
        let stored = self.place.volume(&volume.id).load();
        let stored = stored.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read what was loaded into a volume");
            Some(StoredLoad {
                instance: volume.instance,
                snapshot: String::new(),
                done: Bytes(0),
                loaded: false,
                error: Some(error.to_string()),
            })
        });
        if let Some(stored) = stored {
            let progress = None;
            let load = Load { stored, progress };
            self.state().loads.insert(volume.id.clone(), load);
        }
    }

    pub(super) fn load_report(&self, volume: &VolumeInstance) -> Option<LoadReport> {
        let load = self.state().loads.get(&volume.id).cloned()?;
        let Load { stored, progress } = load;
        if stored.instance != volume.instance {
            return None;
        }
        let is_open = !stored.loaded && stored.error.is_none() && progress.is_none();
        let interrupted = is_open.then(|| INTERRUPTED.to_owned());
        Some(LoadReport {
            snapshot: stored.snapshot,
            done: progress.map_or(stored.done, |done| Bytes(done.load(Ordering::Relaxed))),
            loaded: stored.loaded,
            error: stored.error.or(interrupted),
        })
    }
}
