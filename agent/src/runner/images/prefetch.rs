//! Prefetched layers: unpacked before the image that has them is known on this node.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use oci_spec::image::Digest as OciDigest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tucano_api::{agent::PrefetchedBlob, ids::Digest};

use super::{Error, Images, to_oci};

/// How long a withdrawal is remembered: longer than a prefetch takes.
const WITHDRAWN_KEPT: Duration = Duration::from_secs(600);
/// Largest number of remembered withdrawals.
const MAX_WITHDRAWN: usize = 4096;

/// Recently prefetched layers.
#[derive(Debug)]
pub(super) struct Prefetched {
    permits: Arc<Semaphore>,
    layers: Mutex<HashMap<OciDigest, (OciDigest, Instant)>>,
    /// Blobs of refused images, whose prefetch may still be in progress.
    withdrawn: Mutex<HashMap<OciDigest, Instant>>,
}

impl Prefetched {
    /// Allows for `max` blobs that are queued or in progress.
    pub(super) fn new(max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max)),
            layers: Mutex::default(),
            withdrawn: Mutex::default(),
        }
    }

    /// The diff-ids of layers that were prefetched within the retention.
    pub(super) fn recent(&self, kept: Duration) -> Vec<OciDigest> {
        let mut layers = self.layers();
        layers.retain(|_, (_, when)| when.elapsed() < kept);
        layers
            .values()
            .map(|(diff_id, _)| diff_id.clone())
            .collect()
    }

    /// Drops a blob of a refused image; its layer is removed with the next collection of unused images.
    fn withdraw(&self, blob: &OciDigest) {
        let mut withdrawn = self.withdrawn();
        withdrawn.retain(|_, when| when.elapsed() < WITHDRAWN_KEPT);
        if withdrawn.len() < MAX_WITHDRAWN {
            withdrawn.insert(blob.clone(), Instant::now());
        }
        self.layers().remove(blob);
    }

    fn withdrawn(&self) -> MutexGuard<'_, HashMap<OciDigest, Instant>> {
        self.withdrawn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn layers(&self) -> MutexGuard<'_, HashMap<OciDigest, (OciDigest, Instant)>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name of a blob's lock. The prefix tells it from a layer's: the diff-id of an uncompressed layer is its digest.
pub(super) fn lock_of(blob: &OciDigest) -> String {
    format!("blob {blob}")
}

impl Images {
    /// A permit to prefetch a blob, if one is free.
    pub fn try_prefetch_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.prefetched.permits)
            .try_acquire_owned()
            .ok()
    }

    /// Fetches and unpacks a layer, and keeps it as long as an unused image. A start that needs it meanwhile waits for it.
    pub async fn prefetch(&self, blob: &PrefetchedBlob, _permit: OwnedSemaphorePermit) {
        match self.try_prefetch(blob).await {
            Ok(()) => {}
            // Only a hint: the start that needs the layer reports the error.
            Err(error) => tracing::debug!(digest = %blob.digest, %error, "cannot prefetch"),
        }
    }

    /// Withdraws prefetched blobs of an image that the controller refused. Images that use their layers keep them.
    pub fn withdraw(&self, blobs: &[Digest]) {
        for blob in blobs.iter().filter_map(|blob| to_oci(blob).ok()) {
            self.prefetched.withdraw(&blob);
        }
    }

    async fn try_prefetch(&self, blob: &PrefetchedBlob) -> Result<(), Error> {
        let digest = to_oci(&blob.digest)?;
        self.prefetched.withdrawn().remove(&digest);
        let _fetching = self.fetching.read().await;
        let _slot = self.slots.for_prefetch(blob.bytes).await?;
        let _lock = self.lock(&lock_of(&digest)).await;
        let known = self.prefetched.layers().get(&digest).cloned();
        if known.is_some_and(|(diff_id, _)| self.layers.get(&diff_id).is_some()) {
            return Ok(());
        }
        self.refused.check(&digest)?;
        let (layers, bytes, own) = (self.layers.clone(), blob.bytes, digest.clone());
        let unpack = move |blob: &mut (dyn std::io::Read + Send)| {
            layers.unpack_undescribed(blob, &own, bytes)
        };
        let unpacked = self.fetcher.stream(&digest, blob.bytes, unpack).await;
        self.refused.note(&digest, &unpacked);
        let diff_id = unpacked?;
        self.verified.set(&diff_id);
        tracing::debug!(%digest, %diff_id, "prefetched a layer");
        if self.prefetched.withdrawn().contains_key(&digest) {
            tracing::debug!(%digest, "withdrawn during its prefetch");
            return Ok(());
        }
        self.prefetched
            .layers()
            .insert(digest, (diff_id, Instant::now()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_withdrawn_layer_is_not_kept() {
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(64)).parse().unwrap();
        let (blob, other): (OciDigest, OciDigest) = (digest("1"), digest("2"));
        let prefetched = Prefetched::new(1);
        for blob in [&blob, &other] {
            let entry = (blob.clone(), Instant::now());
            prefetched.layers().insert(blob.clone(), entry);
        }
        prefetched.withdraw(&blob);
        assert_eq!(prefetched.recent(Duration::from_secs(60)), [other]);
        assert!(prefetched.withdrawn().contains_key(&blob));
    }
}
