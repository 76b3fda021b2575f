//! The image store, and which of its images must stay.

use std::{path::Path, str::FromStr, sync::Arc};

use tokio::{
    sync::{Notify, OwnedRwLockReadGuard, RwLock},
    task::spawn_blocking,
};
use tucano_api::ids::Digest;
use tucano_oci_image::{Error, Limits, Platform, Store};

use crate::brain::Brain;

/// The images of the cluster.
#[derive(Debug)]
pub struct Images {
    store: Store,
    /// Held for reading by whoever has an image that no service refers to yet; for writing while images are removed.
    in_hand: Arc<RwLock<()>>,
    released: Notify,
    root: std::path::PathBuf,
}

/// While it exists, no image is removed.
#[derive(Debug)]
pub struct Hold {
    guard: Option<OwnedRwLockReadGuard<()>>,
    images: Arc<Images>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // First the guard, so that the one who is woken finds the lock free.
        drop(self.guard.take());
        self.images.released.notify_one();
    }
}

impl Images {
    /// Opens the store in `root`.
    ///
    /// # Errors
    /// What is wrong with the directory.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, Error> {
        Ok(Self {
            store: Store::open(root, limits)?,
            in_hand: Arc::default(),
            released: Notify::new(),
            root: root.to_owned(),
        })
    }

    /// The store itself.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Keeps every image until the result is dropped.
    pub async fn hold(self: &Arc<Self>) -> Hold {
        Hold {
            guard: Some(self.in_hand.clone().read_owned().await),
            images: self.clone(),
        }
    }

    /// Whether the store has this image. It was checked for this kind of machine when it came in.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check(&self, digest: Digest) -> Result<Digest, Error> {
        let store = self.store.clone();
        let wanted = to_oci(&digest);
        blocking(move || store.image(&wanted)).await?;
        Ok(digest)
    }

    /// That some image may be in use no more.
    pub fn released(&self) {
        self.released.notify_one();
    }

    /// Removes images that nothing refers to, each time some may have become so. Never ends.
    pub async fn collect_garbage(&self, brain: &Brain) {
        loop {
            self.released.notified().await;
            // An upload under way: its end comes back here.
            let Ok(_alone) = self.in_hand.try_write() else {
                continue;
            };
            let Ok(in_use) = brain.query(|cluster| cluster.images_in_use()).await else {
                return;
            };
            let in_use: Vec<_> = in_use.iter().map(to_oci).collect();
            let store = self.store.clone();
            match blocking(move || store.retain(&in_use)).await {
                Ok(0) => {}
                Ok(freed_bytes) => {
                    tracing::info!(freed_bytes, "removed images that nothing refers to")
                }
                Err(error) => tracing::error!(%error, "cannot remove unused images"),
            }
        }
    }

    /// Bytes that the store's blobs take, as last measured.
    pub async fn stored_bytes(&self) -> u64 {
        let blobs = self.root.join("blobs/sha256");
        spawn_blocking(move || directory_bytes(&blobs))
            .await
            .unwrap_or(0)
    }
}

fn directory_bytes(directory: &Path) -> u64 {
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// A digest as the image crate has it.
pub fn to_oci(digest: &Digest) -> oci_spec::image::Digest {
    // Ours is the narrower type: whatever it holds, the other takes.
    oci_spec::image::Digest::from_str(digest.as_str()).expect("a SHA-256 digest")
}

/// Runs what reads and writes files where it holds up nothing else.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The machine that images must be for: the controller's own kind, which its workers share.
pub(super) fn platform() -> Platform {
    Platform::host()
}
