//! The image store and the registry over it, and which of their images must stay.

use std::{
    collections::HashSet,
    path::Path,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedRwLockReadGuard, RwLock},
    task::spawn_blocking,
};
use tucano_api::ids::Digest;
use tucano_oci_distribution::{Reference, Registry};
use tucano_oci_image::{Error, Platform, Store};

use crate::{brain::Brain, config_mgr::Limits};

/// Shortest and longest time between two looks for what the registry keeps no longer.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// Most names of images that an error lists.
const SHOWN: u64 = 20;

/// The images of the cluster.
#[derive(Debug)]
pub struct Images {
    store: Store,
    registry: Registry,
    look_every: Duration,
    /// Images whose layers were read and checked since the program started.
    verified: Mutex<HashSet<oci_spec::image::Digest>>,
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
    /// Opens the store and the registry in `root`.
    ///
    /// # Errors
    /// What is wrong with the directory.
    pub fn open(root: &Path, limits: &Limits) -> Result<Self, tucano_oci_distribution::Error> {
        let store = Store::open(root, limits.of_images())?;
        let registry = Registry::open(root, store.clone(), limits.of_registry())?
            .with_pool(tucano_api::IMAGES_REPOSITORY.parse()?);
        let (shortest, longest) = LOOKS;
        Ok(Self {
            store,
            registry,
            look_every: (limits.registry_untagged_kept.0 / 2).clamp(shortest, longest),
            verified: Mutex::default(),
            in_hand: Arc::default(),
            released: Notify::new(),
            root: root.to_owned(),
        })
    }

    /// The store itself.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The registry over it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Keeps every image until the result is dropped.
    pub async fn hold(self: &Arc<Self>) -> Hold {
        Hold {
            guard: Some(self.in_hand.clone().read_owned().await),
            images: self.clone(),
        }
    }

    /// The image for the workers that a stored manifest or index means. Blobs that were pushed one by one have not been
    /// looked into yet: its layers are checked now, once.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check(&self, digest: Digest) -> Result<Digest, Error> {
        self.check_any(to_oci(&digest)).await
    }

    /// The same of a digest by any algorithm; the image's is SHA-256's.
    ///
    /// # Errors
    /// As there.
    pub async fn check_any(&self, wanted: oci_spec::image::Digest) -> Result<Digest, Error> {
        let store = self.store.clone();
        let image = blocking(move || store.resolve(&wanted, &platform())).await?;
        let found = image.digest.clone();
        if !self.verified().contains(&found) {
            let store = self.store.clone();
            blocking(move || store.verify(&image)).await?;
            self.verified().insert(found.clone());
        }
        let store = self.store.clone();
        from_oci(&blocking(move || store.by_sha256(&found)).await?)
    }

    /// The manifest or index that a name means in the registry now.
    ///
    /// # Errors
    /// That it means none, or that the registry does not work.
    pub async fn find(
        &self,
        reference: Reference,
    ) -> Result<Digest, tucano_oci_distribution::Error> {
        let registry = self.registry.clone();
        let found = blocking(move || registry.find(&reference)).await?;
        Ok(from_oci(&found)?)
    }

    /// Some of the names that there are, for people.
    pub async fn some_names(&self) -> Vec<String> {
        let registry = self.registry.clone();
        let names = blocking(move || registry.some_tags(SHOWN)).await;
        names.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot list the registry's tags");
            Vec::new()
        })
    }

    /// That some image may be in use no more.
    pub fn released(&self) {
        self.released.notify_one();
    }

    /// Removes images that nothing refers to, each time some may have become so. Never ends.
    pub async fn collect_garbage(&self, brain: &Brain) {
        loop {
            // What the registry keeps for a while ends by itself.
            let look = tokio::time::timeout(self.look_every, self.released.notified());
            let _released_or_due = look.await;
            // An upload under way: its end comes back here.
            let Ok(_alone) = self.in_hand.try_write() else {
                continue;
            };
            let Ok(in_use) = brain.query(|cluster| cluster.images_in_use()).await else {
                return;
            };
            match self
                .remove_all_but(in_use.iter().map(to_oci).collect())
                .await
            {
                Ok(0) => {}
                Ok(freed_bytes) => {
                    self.verified().clear();
                    tracing::info!(freed_bytes, "removed images that nothing refers to");
                }
                Err(error) => tracing::error!(%error, "cannot remove unused images"),
            }
        }
    }

    /// Removes what is neither one of these images nor kept by the registry, while nothing is pushed to it.
    async fn remove_all_but(
        &self,
        in_use: Vec<oci_spec::image::Digest>,
    ) -> Result<u64, tucano_oci_distribution::Error> {
        let (store, registry) = (self.store.clone(), self.registry.clone());
        let removed =
            blocking(move || registry.collect(|kept| store.retain_with(&in_use, kept))).await?;
        Ok(removed?)
    }

    fn verified(&self) -> std::sync::MutexGuard<'_, HashSet<oci_spec::image::Digest>> {
        // Inserting and clearing are single steps: what a panic left is whole.
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that the store's blobs take, as last measured.
    pub async fn stored_bytes(&self) -> u64 {
        let blobs = self.root.join("blobs");
        let algorithms = ["sha256", "sha512"];
        let sum = move || {
            algorithms
                .map(|it| directory_bytes(&blobs.join(it)))
                .iter()
                .sum()
        };
        spawn_blocking(sum).await.unwrap_or(0)
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

/// A digest as everybody else has it.
pub(super) fn from_oci(digest: &oci_spec::image::Digest) -> Result<Digest, Error> {
    digest.to_string().parse().map_err(|_| Error::Unsupported {
        what: format!("the digest {digest}"),
        hint: "; use sha256",
    })
}

/// Runs what reads and writes files where it holds up nothing else.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The machine that images must be for: the controller's own kind, which its workers share.
pub(crate) fn platform() -> Platform {
    Platform::host()
}
