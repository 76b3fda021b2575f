//! Layers that may soon be needed: unpacked under their own digests, before any image that has them is known here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use oci_spec::image::Digest as OciDigest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tucano_api::agent::PrefetchedBlob;

use super::{Error, Images, to_oci};

/// What was prefetched lately.
#[derive(Debug)]
pub(super) struct Prefetched {
    turns: Arc<Semaphore>,
    layers: Mutex<HashMap<OciDigest, (OciDigest, Instant)>>,
}

impl Prefetched {
    /// At most so many blobs wait, or are on their way, at once.
    pub(super) fn new(most: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(most)),
            layers: Mutex::default(),
        }
    }

    /// The diff-ids of those that may still become needed.
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

/// The name of the lock on a blob: a layer that is not compressed has its diff-id as digest too.
pub(super) fn lock_of(blob: &OciDigest) -> String {
    format!("blob {blob}")
}

impl Images {
    /// Leave to prefetch a blob; none while as many as may are under way.
    pub fn turn_to_prefetch(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.prefetched.turns).try_acquire_owned().ok()
    }

    /// Fetches and unpacks a blob, if it is a layer; it stays for as long as an unused image does. Asked for in the
    /// meantime, it is waited for.
    pub async fn prefetch(&self, blob: &PrefetchedBlob, _turn: OwnedSemaphorePermit) {
        match self.try_prefetch(blob).await {
            Ok(()) => {}
            // It was a hint; whoever needs the layer finds out what is wrong.
            Err(error) => tracing::debug!(digest = %blob.digest, %error, "not prefetched"),
        }
    }

    async fn try_prefetch(&self, blob: &PrefetchedBlob) -> Result<(), Error> {
        let digest = to_oci(&blob.digest)?;
        let _fetching = self.fetching.read().await;
        let _slot = self.slot().await?;
        let _alone = self.lock(&lock_of(&digest)).await;
        let known = self.prefetched.layers().get(&digest).cloned();
        if known.is_some_and(|(diff_id, _)| self.layers.get(&diff_id).is_some()) {
            return Ok(());
        }
        let (layers, bytes, own) = (self.layers.clone(), blob.bytes, digest.clone());
        let unpack = move |coming: &mut (dyn std::io::Read + Send)| {
            layers.unpack_undescribed(coming, &own, bytes)
        };
        let diff_id = self.fetcher.stream(&digest, blob.bytes, unpack).await?;
        self.checked.set(&diff_id);
        tracing::debug!(%digest, %diff_id, "prefetched a layer");
        self.prefetched
            .layers()
            .insert(digest, (diff_id, Instant::now()));
        Ok(())
    }
}
