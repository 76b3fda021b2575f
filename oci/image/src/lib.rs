//! OCI images: archives in, a content-addressed store, safe unpacking into layer directories.
//! Knows nothing of clusters. Blocking; callers on an async runtime use its blocking threads.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest};

/// Every bound on what is read, each with a default.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest archive, as it is sent.
    pub archive_bytes: u64,
    /// Largest manifest, index or image configuration.
    pub document_bytes: u64,
    /// Largest sum of a layer's files once unpacked.
    pub layer_bytes: u64,
    /// Most entries of a layer.
    pub layer_entries: u64,
    /// Most layers of an image.
    pub layers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            archive_bytes: 8 << 30,
            document_bytes: 4 << 20,
            layer_bytes: 32 << 30,
            layer_entries: 2_000_000,
            layers: 128,
        }
    }
}

/// The kind of machine an image must be for, in OCI (Go) terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`, `arm64`.
    pub architecture: String,
}

impl Platform {
    /// The machine that this program runs on.
    pub fn host() -> Self {
        unimplemented!()
    }
}

/// Why an image was not taken. `code()` is short and stable, for programs.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

impl Error {
    /// Short and stable: `archive_truncated`, `digest_mismatch`, `layer_path_escapes`, `wrong_architecture`,
    /// `too_large`, `disk_full`, `unsupported`, `malformed`, `not_found`, `io`…
    pub fn code(&self) -> &'static str {
        unimplemented!()
    }
}

/// An image of the store, its documents parsed.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the manifest: the image's identity.
    pub digest: Digest,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration.
    pub config: ImageConfiguration,
}

impl Image {
    /// Each layer's descriptor with its diff-id (digest of the uncompressed tar), lowest first.
    pub fn layers(&self) -> Vec<(Descriptor, Digest)> {
        unimplemented!()
    }

    /// Every blob of the image: manifest, configuration, layers.
    pub fn blobs(&self) -> Vec<Digest> {
        unimplemented!()
    }
}

/// Content-addressed blobs in a directory: `blobs/sha256/<hex>`, and `ingest/` for what is not whole yet.
#[derive(Debug, Clone)]
pub struct Store {}

impl Store {
    /// Opens or creates the store in `root` and removes what an earlier run left unfinished.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, Error> {
        let _ = (root, limits);
        unimplemented!()
    }

    /// Takes an OCI layout as a tar stream: each blob's digest, every layer's diff-id and every path in it are
    /// checked; nothing is visible until everything is whole and synced. Returns the image for `platform`.
    pub fn import_archive(&self, archive: impl Read, platform: &Platform) -> Result<Image, Error> {
        let _ = (archive, platform);
        unimplemented!()
    }

    /// Takes one blob, checked against its digest; already stored is fine.
    pub fn ingest_blob(&self, digest: &Digest, blob: impl Read) -> Result<(), Error> {
        let _ = (digest, blob);
        unimplemented!()
    }

    /// The image whose manifest has this digest.
    pub fn image(&self, manifest: &Digest) -> Result<Image, Error> {
        let _ = manifest;
        unimplemented!()
    }

    /// Whether a blob is stored.
    pub fn contains(&self, blob: &Digest) -> bool {
        let _ = blob;
        unimplemented!()
    }

    /// A blob's content and its size in bytes.
    pub fn open_blob(&self, blob: &Digest) -> Result<(File, u64), Error> {
        let _ = blob;
        unimplemented!()
    }

    /// Removes every blob that none of these images refers to, and that was stored before the call; returns the bytes freed.
    /// Safe beside imports.
    pub fn retain(&self, images: &[Digest]) -> Result<u64, Error> {
        let _ = images;
        unimplemented!()
    }
}

/// Directories of unpacked layers, one per diff-id, for use as overlayfs lower directories: `<root>/<hex of diff-id>`.
#[derive(Debug, Clone)]
pub struct Layers {}

impl Layers {
    /// Opens or creates the directory and removes what an earlier run left unfinished.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, Error> {
        let _ = (root, limits);
        unimplemented!()
    }

    /// The directory of a layer that is unpacked.
    pub fn get(&self, diff_id: &Digest) -> Option<PathBuf> {
        let _ = diff_id;
        unimplemented!()
    }

    /// Unpacks a stored layer unless it is there already; whiteouts become what overlayfs knows.
    /// Two calls for one layer at once are safe.
    pub fn unpack(
        &self,
        store: &Store,
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<PathBuf, Error> {
        let _ = (store, layer, diff_id);
        unimplemented!()
    }

    /// Removes every layer that is not among these.
    pub fn retain(&self, diff_ids: &[Digest]) -> Result<(), Error> {
        let _ = diff_ids;
        unimplemented!()
    }
}
