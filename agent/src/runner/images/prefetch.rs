//! Prefetched layers: unpacked before the image that has them is known on this node.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use oci_spec::image::Digest as OciDigest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tucano_api::agent::PrefetchedBlob;

use super::{Error, Images, to_oci};

/// Recently prefetched layers.
#[derive(Debug)]
pub(super) struct Prefetched {
    permits: Arc<Semaphore>,
    layers: Mutex<HashMap<OciDigest, (OciDigest, Instant)>>,
}

impl Prefetched {
    /// Allows for `max` blobs that are queued or in progress.
    pub(super) fn new(max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max)),
            layers: Mutex::default(),
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

    async fn try_prefetch(&self, blob: &PrefetchedBlob) -> Result<(), Error> {
        let digest = to_oci(&blob.digest)?;
        let _fetching = self.fetching.read().await;
        let _slot = self.slot().await?;
        let _lock = self.lock(&lock_of(&digest)).await;
        let known = self.prefetched.layers().get(&digest).cloned();
        if known.is_some_and(|(diff_id, _)| self.layers.get(&diff_id).is_some()) {
            return Ok(());
        }
        let (layers, bytes, own) = (self.layers.clone(), blob.bytes, digest.clone());
        let unpack = move |blob: &mut (dyn std::io::Read + Send)| {
            layers.unpack_undescribed(blob, &own, bytes)
        };
        let diff_id = self.fetcher.stream(&digest, blob.bytes, unpack).await?;
        self.verified.set(&diff_id);
        tracing::debug!(%digest, %diff_id, "prefetched a layer");
        self.prefetched
            .layers()
            .insert(digest, (diff_id, Instant::now()));
        Ok(())
    }
}
