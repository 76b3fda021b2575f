//! Complete, checked blobs of an unfinished import, for readers that start before the image is complete. These blobs are
//! not part of the store yet, and vanish with the import.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use oci_spec::image::Digest;

/// The pending blobs of all imports, with their files.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingBlobs(Arc<Mutex<HashMap<Digest, PathBuf>>>);

/// Called for each received blob with its size in bytes.
pub type BlobListener = Box<dyn Fn(&Digest, u64) + Send + Sync>;

/// Announces the blobs of one import until it is dropped.
pub(crate) struct Announcer {
    pending: PendingBlobs,
    announced: Vec<(Digest, PathBuf)>,
    listener: BlobListener,
}

impl PendingBlobs {
    pub(crate) fn find(&self, digest: &Digest) -> Option<PathBuf> {
        self.lock().get(digest).cloned()
    }

    pub(crate) fn announcer(&self, listener: BlobListener) -> Announcer {
        Announcer {
            pending: self.clone(),
            announced: Vec::new(),
            listener,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, PathBuf>> {
        // Each change is a single step, so a panic leaves a consistent map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announcer {
    pub(crate) fn announce(&mut self, digest: &Digest, path: &Path, bytes: u64) {
        let path = path.to_owned();
        self.pending.lock().insert(digest.clone(), path.clone());
        self.announced.push((digest.clone(), path));
        (self.listener)(digest, bytes);
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        let mut pending = self.pending.lock();
        for (digest, path) in &self.announced {
            // Another import may have announced the same blob since.
            if pending.get(digest) == Some(path) {
                pending.remove(digest);
            }
        }
    }
}

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Announcer").field(&self.announced).finish()
    }
}
