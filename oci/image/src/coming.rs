//! Blobs of an import under way that are whole and checked, for those who may begin with them before the image is: they
//! are no part of the store yet, and vanish with the import.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use oci_spec::image::Digest;

/// Where the blobs are that are coming.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coming(Arc<Mutex<HashMap<Digest, PathBuf>>>);

/// Is told of each blob that has come, with its size in bytes.
pub type Told = Box<dyn Fn(&Digest, u64) + Send + Sync>;

/// Announces the blobs of one import, until it is dropped.
pub(crate) struct Announcer {
    coming: Coming,
    announced: Vec<(Digest, PathBuf)>,
    told: Told,
}

impl Coming {
    pub(crate) fn find(&self, digest: &Digest) -> Option<PathBuf> {
        self.lock().get(digest).cloned()
    }

    pub(crate) fn announcer(&self, told: Told) -> Announcer {
        Announcer {
            coming: self.clone(),
            announced: Vec::new(),
            told,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, PathBuf>> {
        // Every change is a single step: what a panic left is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announcer {
    pub(crate) fn announce(&mut self, digest: &Digest, path: &Path, bytes: u64) {
        let path = path.to_owned();
        self.coming.lock().insert(digest.clone(), path.clone());
        self.announced.push((digest.clone(), path));
        (self.told)(digest, bytes);
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        let mut coming = self.coming.lock();
        for (digest, path) in &self.announced {
            // Another import may have announced the same blob since.
            if coming.get(digest) == Some(path) {
                coming.remove(digest);
            }
        }
    }
}

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Announcer").field(&self.announced).finish()
    }
}
