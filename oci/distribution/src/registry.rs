//! The operations of a registry. They block; an async caller runs them on blocking threads.

use std::{
    collections::HashSet,
    fs::File,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use oci_spec::image::Digest;
use tucano_oci_image::{Store, digest_like};

use crate::{
    error::Error,
    limits::Limits,
    manifest::{Manifest, Target},
    name::{Name, Reference, Which},
    references::{Page, References, Referrer, Stored},
    sessions::{Session, SessionGuard, Sessions},
};

/// The database's file, in the directory of the blobs' store.
const DATABASE: &str = "registry.sqlite3";

/// The directory of unfinished uploads' hard links, in that of the blobs' store.
const UPLOADS: &str = "uploads";

/// A registry over a store of blobs.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Inner>,
    /// The repository that has every blob of the store.
    pool: Option<Name>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    references: Mutex<References>,
    sessions: Sessions,
    limits: Limits,
    /// Held for reading while blobs and their references are added, and for writing while both are removed.
    gate: RwLock<()>,
}

impl Registry {
    /// Opens or creates the registry's database in `root`, for blobs in `store`.
    ///
    /// # Errors
    /// If the database cannot be opened.
    pub fn open(root: &Path, store: Store, limits: Limits) -> Result<Self, Error> {
        let references = References::open(&root.join(DATABASE), limits.database_bytes)?;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                references: Mutex::new(references),
                sessions: Sessions::open(root.join(UPLOADS), limits.sessions),
                limits,
                gate: RwLock::new(()),
            }),
            pool: None,
        })
    }

    /// Makes every blob of the store available in the repository `name`. A `HEAD` request there renews the blob's time of
    /// push, since the client will not push it.
    #[must_use]
    pub fn with_pool(mut self, name: Name) -> Self {
        self.pool = Some(name);
        self
    }

    /// The digest of the manifest or index of a reference.
    ///
    /// # Errors
    /// [`Error::ManifestUnknown`] if there is none.
    pub fn find(&self, reference: &Reference) -> Result<Digest, Error> {
        Ok(self.manifest(&reference.name, &reference.which)?.digest)
    }

    /// At most `most` of the tags, as `name:tag`, for error messages.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn some_tags(&self, most: u64) -> Result<Vec<String>, Error> {
        self.references().some_tags(most)
    }

    /// Removes references that no tag reaches and that were not pushed lately. Then calls `remove` with the digests to
    /// keep, to remove all other blobs, while pushes are blocked.
    ///
    /// # Errors
    /// If the database cannot be changed: `remove` is not called then.
    pub fn collect<T>(&self, remove: impl FnOnce(HashSet<Digest>) -> T) -> Result<T, Error> {
        let _alone = self
            .inner
            .gate
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let kept = self.references().forget(self.inner.limits.untagged_kept)?;
        Ok(remove(kept))
    }

    /// Removes idle uploads. Never ends.
    pub async fn give_up_uploads(&self) {
        let often = (self.inner.limits.session_idle / 4)
            .clamp(Duration::from_millis(10), Duration::from_secs(30));
        loop {
            tokio::time::sleep(often).await;
            let expired = self.inner.sessions.expire(self.inner.limits.session_idle);
            if expired > 0 {
                tracing::info!(expired, "removed idle uploads");
            }
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    pub(crate) fn begin(&self, name: &Name) -> Result<Arc<Session>, Error> {
        let begin = || Ok(self.inner.store.begin_upload()?);
        self.inner
            .sessions
            .begin(name, self.inner.limits.sessions, begin)
    }

    /// Makes an upload a blob of the repository. The upload ends, also after an error.
    pub(crate) fn finish(
        &self,
        name: &Name,
        mut session: SessionGuard,
        digest: &Digest,
    ) -> Result<(), Error> {
        let upload = session.take(&self.inner.store);
        self.inner.sessions.end(&session.session);
        let upload = upload?;
        let _gate = self.enter();
        self.inner.store.finish_upload(upload, digest)?;
        self.references().add_blob(name, digest, &self.inner.limits)
    }

    /// Adds a blob that another repository has; returns whether it is stored.
    pub(crate) fn mount(
        &self,
        name: &Name,
        from: Option<&Name>,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let _gate = self.enter();
        let is_there = match from {
            Some(from) => self.references().has_blob(from, digest)?,
            None => true,
        };
        if !is_there || !self.inner.store.contains(digest) {
            return Ok(false);
        }
        self.references()
            .add_blob(name, digest, &self.inner.limits)?;
        Ok(true)
    }

    /// Opens a blob of the repository; returns its size too. Renews its time of push; in the pool only if it is `held`.
    pub(crate) fn blob(
        &self,
        name: &Name,
        digest: &Digest,
        held: bool,
    ) -> Result<(File, u64), Error> {
        let _gate = self.enter();
        let mut references = self.references();
        if !references.has_blob(name, digest)? {
            if !self.is_pooled(name, digest) {
                drop(references);
                return self.open_pending(name, digest, held);
            }
            if held {
                references.add_blob(name, digest, &self.inner.limits)?;
            }
        } else if let Err(error) =
            references.renew_blob(name, digest, self.inner.limits.untagged_kept)
        {
            // It can be read nevertheless.
            tracing::warn!(%error, %digest, "cannot renew a blob's time of push");
        }
        drop(references);
        self.open_stored(name, digest)
    }

    pub(crate) fn remove_blob(&self, name: &Name, digest: &Digest) -> Result<(), Error> {
        let references = self.references();
        if !references.has_blob(name, digest)? {
            return Err(self.blob_unknown(name, digest));
        }
        if references.is_referred_to(name, digest)? {
            return Err(Error::Unsupported(format!(
                "a manifest of {name} refers to {digest}: delete the manifest first"
            )));
        }
        references.remove_blob(name, digest)?;
        Ok(())
    }

    /// Stores a manifest whose blobs all exist; returns its parsed form.
    pub(crate) fn put_manifest(
        &self,
        name: &Name,
        which: &Which,
        content_type: Option<&str>,
        bytes: &[u8],
    ) -> Result<Manifest, Error> {
        let alias = match which {
            Which::Digest(expected) => {
                check_digest(bytes, expected)?;
                Some(expected)
            }
            Which::Tag(_) => None,
        };
        let manifest = Manifest::parse(bytes, content_type)?;
        let _gate = self.enter();
        for target in &manifest.targets {
            self.check_target(name, target)?;
        }
        self.inner.store.ingest_blob(&manifest.digest, bytes)?;
        // Indexes refer to it by the digest under which it was pushed.
        if let Some(alias) = alias.filter(|alias| **alias != manifest.digest) {
            self.inner.store.ingest_blob(alias, bytes)?;
        }
        let mut references = self.references();
        references.put_manifest(name, &manifest, which, &self.inner.limits)?;
        Ok(manifest)
    }

    pub(crate) fn manifest(&self, name: &Name, which: &Which) -> Result<Stored, Error> {
        let references = self.references();
        if let Some(stored) = references.manifest(name, which)? {
            return Ok(stored);
        }
        Err(Error::ManifestUnknown {
            name: name.clone(),
            reference: which.to_string(),
        })
    }

    /// Opens a manifest's file; returns its size too.
    pub(crate) fn open_manifest(
        &self,
        name: &Name,
        which: &Which,
    ) -> Result<(Stored, File, u64), Error> {
        let _gate = self.enter();
        let stored = self.manifest(name, which)?;
        let (file, bytes) = self.open_stored(name, &stored.digest)?;
        Ok((stored, file, bytes))
    }

    pub(crate) fn remove_manifest(&self, name: &Name, which: &Which) -> Result<(), Error> {
        match self.references().remove_manifest(name, which)? {
            true => Ok(()),
            false => Err(Error::ManifestUnknown {
                name: name.clone(),
                reference: which.to_string(),
            }),
        }
    }

    pub(crate) fn repositories(&self, page: &Page) -> Result<(Vec<String>, bool), Error> {
        self.references().repositories(page)
    }

    pub(crate) fn tags(&self, name: &Name, page: &Page) -> Result<(Vec<String>, bool), Error> {
        let references = self.references();
        if !references.has_repository(name)? {
            return Err(Error::NameUnknown(name.clone()));
        }
        references.tags(name, page)
    }

    pub(crate) fn referrers(
        &self,
        name: &Name,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: &str,
    ) -> Result<(Vec<Referrer>, bool), Error> {
        self.references()
            .referrers(name, subject, artifact_type, last)
    }

    fn check_target(&self, name: &Name, target: &Target) -> Result<(), Error> {
        let digest = &target.digest;
        let is_there = match target.is_manifest {
            true => self
                .references()
                .manifest(name, &Which::Digest(digest.clone()))?
                .is_some(),
            false => self.references().has_blob(name, digest)? || self.is_pooled(name, digest),
        };
        let missing = || Error::ManifestBlobUnknown {
            name: name.clone(),
            digest: digest.clone(),
        };
        if !is_there {
            return Err(missing());
        }
        match self.inner.store.open_blob(digest) {
            Ok((_, bytes)) if bytes != target.bytes => Err(Error::ManifestInvalid(format!(
                "{digest} has {bytes} bytes, and its descriptor says {}",
                target.bytes
            ))),
            Ok(_) => Ok(()),
            Err(error) if error.code() == "not_found" => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }

    fn is_pooled(&self, name: &Name, digest: &Digest) -> bool {
        self.pool.as_ref() == Some(name) && self.inner.store.contains(digest)
    }

    /// The pool also serves pending blobs of an import, but does not report their existence.
    fn open_pending(&self, name: &Name, digest: &Digest, held: bool) -> Result<(File, u64), Error> {
        if held || self.pool.as_ref() != Some(name) {
            return Err(self.blob_unknown(name, digest));
        }
        let coming = self.inner.store.open_pending(digest);
        coming.map_err(|error| match error.code() {
            "not_found" => self.blob_unknown(name, digest),
            _ => error.into(),
        })
    }

    /// A blob that the disk has damaged is removed, so that it can be pushed again.
    fn open_stored(&self, name: &Name, digest: &Digest) -> Result<(File, u64), Error> {
        self.inner
            .store
            .open_verified(digest)
            .map_err(|error| match error.code() {
                "not_found" | "digest_mismatch" => self.blob_unknown(name, digest),
                _ => error.into(),
            })
    }

    fn blob_unknown(&self, name: &Name, digest: &Digest) -> Error {
        Error::BlobUnknown {
            name: name.clone(),
            digest: digest.clone(),
        }
    }

    fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.inner
            .gate
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn references(&self) -> MutexGuard<'_, References> {
        // Changes are transactions, so a panic leaves a consistent database.
        self.inner
            .references
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_digest(bytes: &[u8], expected: &Digest) -> Result<(), Error> {
    let actual = digest_like(expected, bytes);
    if actual == *expected {
        return Ok(());
    }
    Err(Error::DigestInvalid(format!(
        "the manifest's digest is {actual}, not {expected}"
    )))
}
