//! Images on this node: fetched from the controller blob by blob, each layer unpacked once as it arrives, and removed when no
//! process has used them for a while. Damage on the disk is detected before a start, and the damaged part is fetched again.

mod error;
mod fetch;
mod prefetch;
mod refused;
mod slots;
mod verified;

use std::{
    collections::{HashMap, HashSet},
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use error::Error;
use fetch::Fetcher;
use futures_util::future::{try_join, try_join_all};
use oci_spec::image::{Descriptor, Digest as OciDigest, ImageConfiguration};
use prefetch::Prefetched;
use refused::RefusedLayers;
use slots::Slots;
use tokio::sync::{OwnedMutexGuard, RwLock};
use tucano_api::{agent::DesiredProcess, ids::Digest};
use tucano_oci_image::{Form, Helper, Image, Layers, Limits, Platform, Store};
use verified::VerifiedLayers;

use crate::{credentials::Credentials, settings::Unpack};

/// An unpacked image.
#[derive(Debug)]
pub struct Unpacked {
    /// Its configuration.
    pub config: ImageConfiguration,
    /// The directories of its layers, lowest first.
    pub layers: Vec<PathBuf>,
    diff_ids: Vec<OciDigest>,
}

/// The unpacked images of a process.
#[derive(Debug, Clone)]
pub struct ProcessImages {
    /// The one that it runs.
    pub own: Arc<Unpacked>,
    /// Those that are mounted into its container.
    pub mounted: Vec<MountedImage>,
}

/// An image that is mounted into a container.
#[derive(Debug, Clone)]
pub struct MountedImage {
    /// Its path in the container.
    pub path: String,
    /// The image.
    pub image: Arc<Unpacked>,
}

#[cfg(test)]
impl Unpacked {
    /// An image without layers, for tests.
    pub(crate) fn empty() -> Self {
        Self {
            config: ImageConfiguration::default(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
        }
    }
}

/// The node's images.
#[derive(Debug)]
pub struct Images {
    store: Store,
    layers: Layers,
    verified: VerifiedLayers,
    fetcher: Fetcher,
    prefetched: Prefetched,
    refused: RefusedLayers,
    unpacked: Mutex<HashMap<Digest, CachedImage>>,
    /// One lock for each image, layer and blob, so that each is fetched once.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    slots: Slots,
    /// Read-locked during a fetch, so that what it just stored is not removed as unused.
    fetching: RwLock<()>,
    kept_unused: Duration,
    started: Instant,
}

#[derive(Debug)]
struct CachedImage {
    image: Arc<Unpacked>,
    last_used: Instant,
}

/// Options of [`Images::open`].
#[derive(Debug)]
pub struct Options<'a> {
    /// Directory of the blob store.
    pub store: &'a Path,
    /// Directory of the unpacked layers.
    pub layers: &'a Path,
    /// The controller's URL.
    pub controller: &'a str,
    /// What the agent presents to it.
    pub credentials: Arc<Credentials>,
    /// Largest layer, unpacked, in bytes.
    pub layer_bytes: u64,
    /// Concurrent fetches of layers.
    pub layer_pulls: usize,
    /// Prefetched layers that are queued or in progress.
    pub prefetches: usize,
    /// Time without progress after which a transfer is aborted.
    pub stalled: Duration,
    /// Retention of unused images.
    pub kept_unused: Duration,
    /// Format of unpacked layers.
    pub unpack: Unpack,
    /// Validity of an integrity check of a layer.
    pub check_again: Duration,
    /// Command of the confined process that unpacks layers.
    pub helper: Helper,
}

impl Images {
    /// Opens or creates the directories.
    ///
    /// # Errors
    /// A directory cannot be used, or EROFS is required and does not work.
    pub fn open(options: Options<'_>) -> Result<Self, Error> {
        let limits = Limits {
            layer_bytes: options.layer_bytes,
            // The controller has checked this sum. Here the memory of a layer's tree is limited.
            layer_xattr_bytes: u64::MAX,
            ..Limits::default()
        };
        let open = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Open {
                path,
                source: Box::new(source),
            }
        };
        let fetcher = Fetcher::new(options.controller, options.credentials, options.stalled)?;
        Ok(Self {
            store: Store::open(options.store, limits.clone()).map_err(open(options.store))?,
            layers: open_layers(options.layers, limits, options.unpack, options.helper)?,
            verified: VerifiedLayers::new(options.check_again),
            fetcher,
            prefetched: Prefetched::new(options.prefetches),
            refused: RefusedLayers::default(),
            unpacked: Mutex::default(),
            locks: Mutex::default(),
            slots: Slots::new(options.layer_pulls),
            fetching: RwLock::default(),
            kept_unused: options.kept_unused,
            started: Instant::now(),
        })
    }

    /// The images of a process, as [`Images::ensure`] has each of them.
    ///
    /// # Errors
    /// The first image that is not available, or one whose digest the desired set does not say.
    pub async fn of_process(&self, process: &DesiredProcess) -> Result<ProcessImages, Error> {
        let mounts = process.config.mount.iter();
        let mounts = mounts.filter(|mount| mount.image.is_some());
        let mounted = mounts.map(async |mount| {
            let path = mount.path.clone();
            let digest = mount.digest.as_ref();
            let digest = digest.ok_or_else(|| Error::Unresolved(path.clone()))?;
            match self.ensure(digest).await {
                Ok(image) => Ok(MountedImage { path, image }),
                Err(source) => Err(Error::Mounted {
                    path,
                    source: Box::new(source),
                }),
            }
        });
        let (own, mounted) = try_join(self.ensure(&process.image), try_join_all(mounted)).await?;
        Ok(ProcessImages { own, mounted })
    }

    /// The image; missing parts are fetched and unpacked. Dropping the future aborts the fetch.
    ///
    /// # Errors
    /// The first part that cannot be fetched, unpacked or verified.
    pub async fn ensure(&self, digest: &Digest) -> Result<Arc<Unpacked>, Error> {
        let _fetching = self.fetching.read().await;
        let _lock = self.lock(digest.as_str()).await;
        if let Some(image) = self.known(digest) {
            return Ok(image);
        }
        let image = self.documents(&to_oci(digest)?).await?;
        check_platform(&image)?;
        let parts = deduplicate(image.layers());
        let layers = parts
            .iter()
            .map(|(layer, diff_id)| self.layer(layer, diff_id));
        try_join_all(layers).await?;
        let diff_ids: Vec<_> = parts.iter().map(|(_, diff_id)| diff_id.clone()).collect();
        let unpacked = Arc::new(Unpacked {
            layers: self.stack(&diff_ids, volumes(&image.config)).await?,
            diff_ids,
            config: image.config,
        });
        let kept = CachedImage {
            image: Arc::clone(&unpacked),
            last_used: Instant::now(),
        };
        self.cache().insert(digest.clone(), kept);
        Ok(unpacked)
    }

    /// Removes blobs and layers of images that are neither in use nor were used recently.
    ///
    /// # Errors
    /// A blob or a layer cannot be removed.
    pub async fn remove_unused(&self, in_use: &[Digest]) -> Result<(), Error> {
        // Postponed during fetches, and for one retention after the agent's start: earlier uses are not known.
        let Ok(_exclusive) = self.fetching.try_write() else {
            return Ok(());
        };
        if self.started.elapsed() < self.kept_unused {
            return Ok(());
        }
        let Some((images, diff_ids)) = self.needed(in_use)? else {
            return Ok(());
        };
        self.verified.retain(&diff_ids);
        let (store, layers) = (self.store.clone(), self.layers.clone());
        blocking(move || {
            store.retain(&images).map_err(store_error("unused blobs"))?;
            layers
                .retain(&diff_ids)
                .map_err(store_error("unused layers"))
        })
        .await?;
        self.locks().retain(|_, lock| Arc::strong_count(lock) > 1);
        Ok(())
    }

    /// Manifests and diff-ids to keep; `None` if those of an image in use are unknown, so that nothing may be removed.
    #[allow(
        clippy::type_complexity,
        reason = "two lists, named where they are used"
    )]
    fn needed(&self, in_use: &[Digest]) -> Result<Option<(Vec<OciDigest>, Vec<OciDigest>)>, Error> {
        let mut cache = self.cache();
        for digest in in_use {
            if let Some(kept) = cache.get_mut(digest) {
                kept.last_used = Instant::now();
            }
        }
        cache.retain(|digest, kept| {
            // A process that was just given its image is not listed as using it yet, but holds a reference.
            in_use.contains(digest)
                || Arc::strong_count(&kept.image) > 1
                || kept.last_used.elapsed() < self.kept_unused
        });
        let mut images = Vec::new();
        let mut diff_ids = self.prefetched.recent(self.kept_unused);
        for (digest, kept) in cache.iter() {
            images.push(to_oci(digest)?);
            diff_ids.extend(kept.image.diff_ids.iter().cloned());
        }
        for digest in in_use.iter().filter(|digest| !cache.contains_key(digest)) {
            // The image of an adopted process, or one that could not be fetched.
            let digest = to_oci(digest)?;
            let Ok(image) = self.store.image(&digest) else {
                return Ok(None);
            };
            diff_ids.extend(image.layers().into_iter().map(|(_, diff_id)| diff_id));
            images.push(digest);
        }
        Ok(Some((images, diff_ids)))
    }

    fn known(&self, digest: &Digest) -> Option<Arc<Unpacked>> {
        let mut cache = self.cache();
        let kept = cache.get_mut(digest)?;
        let mut layers = kept.image.diff_ids.iter();
        let intact =
            layers.all(|layer| self.verified.is_recent(layer) && self.layers.get(layer).is_some());
        kept.last_used = Instant::now();
        intact.then(|| Arc::clone(&kept.image))
    }

    /// Manifest and configuration; damaged ones are fetched again.
    async fn documents(&self, digest: &OciDigest) -> Result<Image, Error> {
        let mut read = self.read_documents(digest).await;
        for _document in 0..2 {
            match read {
                // Reading may have detected the damage already, and removed the document.
                Err(error)
                    if error.is_digest_mismatch()
                        || self.remove_damaged_document(digest).await? =>
                {
                    tracing::warn!(%digest, %error, "fetching damaged documents of an image again");
                    read = self.read_documents(digest).await;
                }
                read => return read,
            }
        }
        read
    }

    /// Removes the manifest if it is damaged, or else the configuration; whether one was.
    async fn remove_damaged_document(&self, manifest: &OciDigest) -> Result<bool, Error> {
        if self.is_damaged(manifest).await? {
            return Ok(true);
        }
        let limit = Limits::default().document_bytes;
        match self.config_digest(manifest, limit).await {
            Ok(config) => self.is_damaged(&config).await,
            Err(_) => Ok(false),
        }
    }

    async fn is_damaged(&self, blob: &OciDigest) -> Result<bool, Error> {
        let (store, blob) = (self.store.clone(), blob.clone());
        let verified = blocking(move || Ok(store.verify_blob(&blob))).await?;
        Ok(verified.is_err_and(|error| error.code() == "digest_mismatch"))
    }

    async fn read_documents(&self, digest: &OciDigest) -> Result<Image, Error> {
        let limit = Limits::default().document_bytes;
        if !self.store.contains(digest) {
            self.fetcher.fetch(&self.store, digest, limit).await?;
        }
        let config = self.config_digest(digest, limit).await?;
        if !self.store.contains(&config) {
            self.fetcher.fetch(&self.store, &config, limit).await?;
        }
        let (store, digest) = (self.store.clone(), digest.clone());
        blocking(move || {
            store.image(&digest).map_err(|source| Error::Image {
                digest: digest.to_string(),
                source: Box::new(source),
            })
        })
        .await
    }

    async fn config_digest(&self, manifest: &OciDigest, limit: u64) -> Result<OciDigest, Error> {
        let (store, manifest) = (self.store.clone(), manifest.clone());
        blocking(move || {
            let (file, size) = store
                .open_blob(&manifest)
                .map_err(store_error(manifest.as_ref()))?;
            let parsed = (size <= limit)
                .then(|| oci_spec::image::ImageManifest::from_reader(file).ok())
                .flatten();
            let parsed =
                parsed.ok_or_else(|| Error::Digest(format!("the content of {manifest}")))?;
            Ok(parsed.config().digest().clone())
        })
        .await
    }

    /// The directory of a layer.
    async fn layer(&self, layer: &Descriptor, diff_id: &OciDigest) -> Result<PathBuf, Error> {
        let _slot = self.slots.for_layer(layer.size()).await?;
        // The layer may be being prefetched under the name of its blob.
        let _prefetch = self.lock(&prefetch::lock_of(layer.digest())).await;
        let _lock = self.lock(diff_id.as_ref()).await;
        if self.is_intact(diff_id).await?
            && let Some(directory) = self.layers.get(diff_id)
        {
            return Ok(directory);
        }
        let unpacked = match self.unpack(layer, diff_id, None).await {
            Err(error) if error.is_too_many_to_index() => {
                tracing::info!(%diff_id, "unpacking a layer with too many entries for EROFS to a directory");
                self.unpack(layer, diff_id, Some(Form::Directories)).await?
            }
            unpacked => unpacked?,
        };
        self.verified.set(diff_id);
        Ok(unpacked)
    }

    /// The directories of an image's layers, with the one on top that belongs to this chain of layers.
    async fn stack(
        &self,
        diff_ids: &[OciDigest],
        volumes: Vec<String>,
    ) -> Result<Vec<PathBuf>, Error> {
        let (layers, diff_ids) = (self.layers.clone(), diff_ids.to_vec());
        blocking(move || {
            layers
                .stack_with_volumes(&diff_ids, &volumes)
                .map_err(store_error("the chain of layers"))
        })
        .await
    }

    /// Whether a layer exists and is intact. A damaged one is set aside.
    async fn is_intact(&self, diff_id: &OciDigest) -> Result<bool, Error> {
        if self.verified.is_recent(diff_id) {
            return Ok(true);
        }
        let (layers, layer) = (self.layers.clone(), diff_id.clone());
        let verified = blocking(move || Ok(layers.verify(&layer))).await?;
        let source = match verified {
            Ok(()) => {
                self.verified.set(diff_id);
                return Ok(true);
            }
            Err(source) => source,
        };
        match source.code() {
            "not_found" => Ok(false),
            "layer_damaged" => {
                tracing::warn!(error = %source, "fetching a damaged layer again");
                Ok(false)
            }
            _ => Err(Error::Check {
                diff_id: diff_id.to_string(),
                source: Box::new(source),
            }),
        }
    }

    /// Unpacks a layer while it is fetched, without storing its blob.
    async fn unpack(
        &self,
        layer: &Descriptor,
        diff_id: &OciDigest,
        form: Option<Form>,
    ) -> Result<PathBuf, Error> {
        self.refused.check(layer.digest())?;
        let layers = self.layers.clone();
        let (wanted, diff_id) = (layer.clone(), diff_id.clone());
        let unpack = move |blob: &mut (dyn Read + Send)| match form {
            None => layers.unpack_stream(blob, &wanted, &diff_id),
            Some(form) => layers.unpack_stream_in_form(form, blob, &wanted, &diff_id),
        };
        let unpacked = self
            .fetcher
            .stream(layer.digest(), layer.size(), unpack)
            .await;
        self.refused.note(layer.digest(), &unpacked);
        unpacked
    }

    async fn lock(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = Arc::clone(self.locks().entry(name.to_owned()).or_default());
        lock.lock_owned().await
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<()>>>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<Digest, CachedImage>> {
        self.unpacked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the layers in the configured format, unpacked by a confined process if the node supports that.
fn open_layers(
    root: &Path,
    limits: Limits,
    unpack: Unpack,
    helper: Helper,
) -> Result<Layers, Error> {
    let layers = open_in_form(root, limits, unpack)?;
    if let Err(error) = layers.use_helper(helper) {
        tracing::warn!(%error, "unpacking layers without confinement: the confined helper does not work on this node");
    }
    Ok(layers)
}

fn open_in_form(root: &Path, limits: Limits, unpack: Unpack) -> Result<Layers, Error> {
    let open = |form| {
        Layers::open_in_form(root, limits.clone(), form).map_err(|source| Error::Open {
            path: root.to_owned(),
            source: Box::new(source),
        })
    };
    if unpack == Unpack::Directories {
        return open(Form::Directories);
    }
    let layers = open(Form::Erofs)?;
    match layers.try_erofs() {
        Ok(()) => Ok(layers),
        Err(source) if unpack == Unpack::Erofs => Err(Error::NoErofs(Box::new(source))),
        Err(error) => {
            tracing::info!(%error, "unpacking layers to directories: EROFS does not work on this node");
            open(Form::Directories)
        }
    }
}

/// Keeps the uppermost of identical layers, because an overlay refuses duplicates and hides the lower ones anyway.
fn deduplicate(layers: Vec<(Descriptor, OciDigest)>) -> Vec<(Descriptor, OciDigest)> {
    let mut above = HashSet::new();
    let mut uppermost: Vec<_> = layers
        .into_iter()
        .rev()
        .filter(|(_, diff_id)| above.insert(diff_id.clone()))
        .collect();
    uppermost.reverse();
    uppermost
}

/// The declared volumes of an image, sorted.
pub(super) fn volumes(image: &ImageConfiguration) -> Vec<String> {
    let config = image.config().as_ref();
    let volumes = config.and_then(|config| config.volumes().clone());
    let mut volumes = volumes.unwrap_or_default();
    volumes.sort();
    volumes
}

fn check_platform(image: &Image) -> Result<(), Error> {
    let node = Platform::host();
    let os = image.config.os().to_string();
    let architecture = image.config.architecture().to_string();
    if os == node.os && architecture == node.architecture {
        return Ok(());
    }
    Err(Error::WrongPlatform {
        digest: image.digest.to_string(),
        image: format!("{os}/{architecture}"),
        node: format!("{}/{}", node.os, node.architecture),
    })
}

fn to_oci(digest: &Digest) -> Result<OciDigest, Error> {
    digest
        .as_str()
        .parse()
        .map_err(|_| Error::Digest(digest.to_string()))
}

fn store_error(digest: &str) -> impl FnOnce(tucano_oci_image::Error) -> Error + use<> {
    let digest = digest.to_owned();
    move |source| Error::Store {
        digest,
        source: Box::new(source),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Ending)?
}
