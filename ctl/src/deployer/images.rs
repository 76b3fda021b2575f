//! The image store, the registry over it, and garbage collection.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::Path,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedRwLockReadGuard, RwLock},
    task::spawn_blocking,
};
use tucano_api::{ids::Digest, service::ServiceConfig};
use tucano_oci_distribution::{Reference, Registry};
use tucano_oci_image::{Description, Error, Healthcheck, Overrides, Platform, Store};

use crate::{config_mgr::Limits, state_loop::StateHandle};

/// Shortest and longest interval of garbage collection.
const COLLECT_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(60));
/// Images whose blobs are remembered.
const IMAGES_KNOWN: usize = 4096;
/// Announced blobs that every node may fetch: the newest.
const ANNOUNCED: usize = 256;
/// Most names of images that an error lists.
const SHOWN: u64 = 20;

/// The images of the cluster.
#[derive(Debug)]
pub struct Images {
    store: Store,
    registry: Registry,
    collect_every: Duration,
    /// Images whose layers have been verified since the start.
    verified: Mutex<HashSet<oci_spec::image::Digest>>,
    /// Read-locked while an image is not referenced by a service yet; write-locked while images are removed.
    in_use: Arc<RwLock<()>>,
    /// Blobs of images in use, by image.
    blobs: Mutex<HashMap<Digest, Arc<HashSet<Digest>>>>,
    /// The last blobs that were announced to all agents.
    announced: Mutex<VecDeque<Digest>>,
    released: Notify,
    root: std::path::PathBuf,
}

/// Prevents the removal of images until it is dropped.
#[derive(Debug)]
pub struct ImageGuard {
    guard: Option<OwnedRwLockReadGuard<()>>,
    images: Arc<Images>,
}

impl Drop for ImageGuard {
    fn drop(&mut self) {
        // The lock is released before the collector wakes.
        drop(self.guard.take());
        self.images.released.notify_one();
    }
}

impl Images {
    /// Opens the store and the registry in `root`.
    ///
    /// # Errors
    /// The directory is not usable.
    pub fn open(root: &Path, limits: &Limits) -> Result<Self, tucano_oci_distribution::Error> {
        let store = Store::open(root, limits.of_images())?;
        let registry = Registry::open(root, store.clone(), limits.of_registry())?
            .with_pool(tucano_api::IMAGES_REPOSITORY.parse()?);
        let (shortest, longest) = COLLECT_INTERVAL;
        Ok(Self {
            store,
            registry,
            collect_every: (limits.registry_untagged_kept.0 / 2).clamp(shortest, longest),
            verified: Mutex::default(),
            in_use: Arc::default(),
            blobs: Mutex::default(),
            announced: Mutex::default(),
            released: Notify::new(),
            root: root.to_owned(),
        })
    }

    /// The image store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The registry over it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Prevents the removal of images until the result is dropped.
    pub async fn guard(self: &Arc<Self>) -> ImageGuard {
        ImageGuard {
            guard: Some(self.in_use.clone().read_owned().await),
            images: self.clone(),
        }
    }

    /// Resolves a stored manifest or index to the image for the workers' platform. Layers that were pushed as blobs have
    /// not been verified yet: that happens here, once.
    ///
    /// # Errors
    /// The image is invalid.
    pub async fn check(&self, digest: Digest) -> Result<Digest, Error> {
        self.check_any(to_oci(&digest)).await
    }

    /// As [`Images::check`], for a digest of any algorithm; the result is a SHA-256 digest.
    ///
    /// # Errors
    /// As [`Images::check`].
    pub async fn check_any(&self, wanted: oci_spec::image::Digest) -> Result<Digest, Error> {
        self.check_for(wanted, &platform()).await
    }

    /// As [`Images::check_any`], for another platform.
    ///
    /// # Errors
    /// As [`Images::check`].
    pub async fn check_for(
        &self,
        wanted: oci_spec::image::Digest,
        platform: &Platform,
    ) -> Result<Digest, Error> {
        let (store, platform) = (self.store.clone(), platform.clone());
        let image = blocking(move || store.resolve(&wanted, &platform)).await?;
        let found = image.digest.clone();
        if !self.verified().contains(&found) {
            let store = self.store.clone();
            blocking(move || store.verify(&image)).await?;
            self.verified().insert(found.clone());
        }
        let store = self.store.clone();
        from_oci(&blocking(move || store.by_sha256(&found)).await?)
    }

    /// Checks that a process with this configuration can start from a stored image; returns warnings.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn check_runnable(
        &self,
        image: &Digest,
        config: &ServiceConfig,
    ) -> Result<Vec<String>, Error> {
        let (store, image) = (self.store.clone(), to_oci(image));
        let overrides = overrides(config);
        blocking(move || store.check_runnable(&store.image(&image)?, &overrides)).await
    }

    /// The health check of a stored image and its declared volumes, and why the former cannot run with this configuration.
    ///
    /// # Errors
    /// Its documents or layers cannot be read.
    pub(super) async fn declared(
        &self,
        image: &Digest,
        config: &ServiceConfig,
    ) -> Result<Declared, Error> {
        let (store, image) = (self.store.clone(), to_oci(image));
        let overrides = overrides(config);
        blocking(move || {
            let image = store.image(&image)?;
            let obstacle = store.healthcheck_obstacle(&image, &overrides)?;
            let of_image = image.config.config().as_ref();
            let volumes = of_image.and_then(|config| config.volumes().clone());
            Ok(Declared {
                healthcheck: match obstacle {
                    Some(obstacle) => Err(obstacle),
                    None => Ok(image.healthcheck),
                },
                volumes: volumes.unwrap_or_default(),
            })
        })
        .await
    }

    /// What a stored image says of its processes.
    ///
    /// # Errors
    /// Its documents cannot be read.
    pub(super) async fn description(&self, image: &Digest) -> Result<Description, Error> {
        let (store, image) = (self.store.clone(), to_oci(image));
        let image = blocking(move || store.image(&image)).await?;
        let config = serde_json::to_value(&image.config).unwrap_or_default();
        Ok(Description {
            healthcheck: image.healthcheck,
            ..Description::of(&config)
        })
    }

    /// Checks that the files of a stored image can be mounted; returns warnings.
    ///
    /// # Errors
    /// Its layers cannot be read.
    pub async fn check_mountable(&self, image: &Digest) -> Result<Vec<String>, Error> {
        let (store, image) = (self.store.clone(), to_oci(image));
        blocking(move || store.check_mountable(&store.image(&image)?)).await
    }

    /// The platform that a stored image is for.
    ///
    /// # Errors
    /// Its documents cannot be read.
    pub async fn platform_of(&self, image: &Digest) -> Result<Platform, Error> {
        let (store, image) = (self.store.clone(), to_oci(image));
        let image = blocking(move || store.image(&image)).await?;
        Ok(Platform {
            os: image.config.os().to_string(),
            architecture: image.config.architecture().to_string(),
        })
    }

    /// The layers of a stored image.
    ///
    /// # Errors
    /// Its documents cannot be read.
    pub async fn layers(&self, image: &Digest) -> Result<Vec<Digest>, Error> {
        let (store, image) = (self.store.clone(), to_oci(image));
        let image = blocking(move || store.image(&image)).await?;
        let layers = image.layers();
        let digests = layers.iter().map(|(layer, _)| from_oci(layer.digest()));
        digests.collect()
    }

    /// Resolves a reference in the cluster's registry to a manifest or index.
    ///
    /// # Errors
    /// It does not exist, or the registry failed.
    pub async fn find(
        &self,
        reference: Reference,
    ) -> Result<Digest, tucano_oci_distribution::Error> {
        let registry = self.registry.clone();
        let found = blocking(move || registry.find(&reference)).await?;
        Ok(from_oci(&found)?)
    }

    /// Some of the existing names, for error messages.
    pub async fn some_names(&self) -> Vec<String> {
        let registry = self.registry.clone();
        let names = blocking(move || registry.some_tags(SHOWN)).await;
        names.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot list the registry's tags");
            Vec::new()
        })
    }

    /// Whether a blob belongs to one of these images, or was announced to all agents.
    pub async fn has_blob(&self, images: &[Digest], blob: &Digest) -> bool {
        if images.contains(blob) || lock(&self.announced).contains(blob) {
            return true;
        }
        for image in images {
            if self.blobs_of(image).await.contains(blob) {
                return true;
            }
        }
        false
    }

    /// All blobs of an image; empty if it cannot be read.
    async fn blobs_of(&self, image: &Digest) -> Arc<HashSet<Digest>> {
        if let Some(blobs) = lock(&self.blobs).get(image) {
            return blobs.clone();
        }
        let (store, wanted) = (self.store.clone(), to_oci(image));
        // Of any architecture: workers may have others than the controller.
        let read = blocking(move || store.image(&wanted)).await;
        let Ok(read) = read else {
            return Arc::default();
        };
        let blobs = read.blobs();
        let blobs: HashSet<Digest> = blobs.iter().filter_map(|it| from_oci(it).ok()).collect();
        let blobs = Arc::new(blobs);
        let mut known = lock(&self.blobs);
        if known.len() >= IMAGES_KNOWN {
            known.clear();
        }
        known.insert(image.clone(), blobs.clone());
        blobs
    }

    /// Lets every node fetch this blob: all agents are told of it before its image is assigned to nodes.
    pub(super) fn announce(&self, blob: &Digest) {
        let mut announced = lock(&self.announced);
        if announced.contains(blob) {
            return;
        }
        if announced.len() >= ANNOUNCED {
            announced.pop_front();
        }
        announced.push_back(blob.clone());
    }

    /// Wakes garbage collection: some image may be unused now.
    pub fn released(&self) {
        self.released.notify_one();
    }

    /// Removes unreferenced images whenever some may be. Runs until the state loop stops.
    pub async fn collect_garbage(&self, state: &StateHandle) {
        loop {
            // The registry's retention of untagged content expires without a notification.
            let woken = tokio::time::timeout(self.collect_every, self.released.notified());
            let _released_or_due = woken.await;
            // During an upload: dropping its guard wakes this loop again.
            let Ok(_alone) = self.in_use.try_write() else {
                continue;
            };
            let Ok(in_use) = state.query(|cluster| cluster.images_in_use()).await else {
                return;
            };
            match self
                .remove_all_but(in_use.iter().map(to_oci).collect())
                .await
            {
                Ok(0) => {}
                Ok(freed_bytes) => {
                    self.verified().clear();
                    tracing::info!(freed_bytes, "removed unreferenced images");
                }
                Err(error) => tracing::error!(%error, "cannot remove unused images"),
            }
        }
    }

    /// Removes everything except these images and what the registry retains, while no push is active.
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
        // Insert and clear are atomic: a panic leaves no partial state.
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Size of the store's blobs, in bytes.
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

/// What an image says of its processes.
#[derive(Debug)]
pub(super) struct Declared {
    /// The health check; why it cannot run, where it has one that cannot.
    pub(super) healthcheck: Result<Option<Healthcheck>, String>,
    /// The paths of its volumes.
    pub(super) volumes: Vec<String>,
}

/// What a configuration sets in place of the image's.
fn overrides(config: &ServiceConfig) -> Overrides {
    Overrides {
        entrypoint: config.entrypoint.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
        path: config.env.get("PATH").cloned(),
        mounted: mounted(config),
    }
}

/// Directories of a service's containers whose files are not its image's.
fn mounted(config: &ServiceConfig) -> Vec<String> {
    let mounts = config.mount.iter();
    let mounts = mounts.filter(|mount| mount.host.is_some() || mount.image.is_some());
    mounts.map(|mount| mount.path.clone()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Each change is a single step: a panic leaves no partial state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Converts to the image crate's type.
pub fn to_oci(digest: &Digest) -> oci_spec::image::Digest {
    // `Digest` is the narrower type.
    oci_spec::image::Digest::from_str(digest.as_str()).expect("a SHA-256 digest")
}

/// Converts from the image crate's type.
pub(super) fn from_oci(digest: &oci_spec::image::Digest) -> Result<Digest, Error> {
    digest.to_string().parse().map_err(|_| Error::Unsupported {
        what: format!("the digest {digest}"),
        hint: "; use sha256",
    })
}

/// Runs blocking file operations on their own thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The platform that images must support: the controller's, which its workers share.
pub(crate) fn platform() -> Platform {
    Platform::host()
}
