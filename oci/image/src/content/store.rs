//! The content-addressed store: `blobs/sha256/<hex>`, `blobs/sha512/<hex>`, and `ingest/` for incomplete blobs.
//!
//! A blob is written once, under its digest, and never changed. Adding and removing blobs requires a lock (flock) on
//! their directory, which also excludes other programs. Garbage collection is safe beside imports: it removes only blobs
//! that have not changed since it started, and adding a blob again makes it a new one.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, FileTimes, Metadata},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use oci_spec::image::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::{
    content::{
        bounded::bounded_blob,
        ingest::{Blobs, Ingest, path_in, sync_blobs},
        pending::{Announcer, BlobListener, PendingBlobs},
        upload::Upload,
    },
    digest::{ALGORITHMS, Hashing, from_hex},
    error::Error,
    limits::Limits,
    outline::Outlines,
    scratch::{self, Scratch},
    seal::is_damage,
};

/// How long a verified blob counts as intact before [`Store::open_verified`] reads it again.
const VERIFICATION_VALID: Duration = Duration::from_secs(3600);

/// A directory of content-addressed blobs.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    blobs: PathBuf,
    ingest: PathBuf,
    limits: Limits,
    pending: PendingBlobs,
    outlines: Outlines,
    /// Blobs that were verified, and when.
    verified: Mutex<HashMap<Digest, (Identity, Instant)>>,
}

impl Store {
    /// Opens or creates the store in `root` and removes incomplete blobs of an earlier run.
    ///
    /// # Errors
    /// If a directory cannot be made or cleaned.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, Error> {
        let (blobs, ingest) = (root.join("blobs"), root.join("ingest"));
        for (algorithm, _) in ALGORITHMS {
            create_private(&blobs.join(algorithm))?;
        }
        create_private(&ingest)?;
        scratch::sweep(&ingest)?;
        Ok(Self {
            inner: Arc::new(Inner {
                blobs,
                ingest,
                limits,
                pending: PendingBlobs::default(),
                outlines: Outlines::default(),
                verified: Mutex::default(),
            }),
        })
    }

    /// The content and the size in bytes of a blob that an unfinished import has received. The blob may never become part
    /// of the store.
    ///
    /// # Errors
    /// `not_found` if no import has received it; otherwise why it cannot be read.
    pub fn open_pending(&self, blob: &Digest) -> Result<(File, u64), Error> {
        let missing = || Error::NotFound(blob.clone());
        let path = self.inner.pending.find(blob).ok_or_else(missing)?;
        open_sized(&path, blob)
    }

    /// Stores one blob, checked against its digest. A blob that is already stored is kept.
    ///
    /// # Errors
    /// If the content has another digest, is longer than `archive_bytes`, or cannot be read or stored.
    pub fn ingest_blob(&self, digest: &Digest, blob: impl Read) -> Result<(), Error> {
        if self.touch(digest)? {
            return Ok(());
        }
        let mut ingest = self.new_ingest()?;
        ingest.receive(digest, bounded_blob(blob, &self.inner.limits))?;
        ingest.sync(std::slice::from_ref(digest))?;
        self.publish(&ingest, std::slice::from_ref(digest))
    }

    /// Starts a blob that is written in pieces.
    ///
    /// # Errors
    /// If its file cannot be created.
    pub fn begin_upload(&self) -> Result<Upload, Error> {
        Upload::new(Scratch::create(&self.inner.ingest)?)
    }

    /// Stores an uploaded blob under its digest. The blob is synced to disk when this returns.
    ///
    /// # Errors
    /// If it has another digest, or cannot be stored. No trace of it remains then.
    pub fn finish_upload(&self, upload: Upload, digest: &Digest) -> Result<(), Error> {
        let to = self.path_of(digest)?;
        let (from, _scratch) = upload.finish(digest)?;
        let _lock = self.lock()?;
        fs::rename(&from, &to).map_err(|source| Error::io("make", &to, source))?;
        sync_blobs(&self.inner.blobs)
    }

    /// Whether a blob is stored.
    pub fn contains(&self, blob: &Digest) -> bool {
        self.path_of(blob).is_ok_and(|path| path.exists())
    }

    /// A blob's content and its size in bytes.
    ///
    /// # Errors
    /// `not_found` if it is not stored.
    pub fn open_blob(&self, blob: &Digest) -> Result<(File, u64), Error> {
        open_sized(&self.path_of(blob)?, blob)
    }

    /// Like [`Store::open_blob`], for a blob that is sent elsewhere: a blob that was not verified within the last hour is
    /// verified first, as by [`Store::verify_blob`].
    ///
    /// # Errors
    /// `digest_mismatch` if the disk has damaged it; `not_found` if it is not stored.
    pub fn open_verified(&self, blob: &Digest) -> Result<(File, u64), Error> {
        let (file, bytes) = self.open_blob(blob)?;
        let path = self.path_of(blob)?;
        let metadata = file.metadata();
        let identity = Identity::of(&metadata.map_err(|source| Error::io("read", &path, source))?);
        let is_known = |(known, when): &(Identity, Instant)| {
            *known == identity && when.elapsed() < VERIFICATION_VALID
        };
        if self
            .verified()
            .get(blob)
            .is_none_or(|entry| !is_known(entry))
        {
            self.verify_blob(blob)?;
            let mut verified = self.verified();
            verified.retain(|_, (_, when)| when.elapsed() < VERIFICATION_VALID);
            verified.insert(blob.clone(), (identity, Instant::now()));
        }
        Ok((file, bytes))
    }

    /// Reads a blob, checks its digest and returns its size in bytes. A damaged blob is removed, so that it can be stored
    /// again, and logged.
    ///
    /// # Errors
    /// `digest_mismatch` if it was damaged; `io` if it cannot be read; `not_found` if it is not stored.
    pub fn verify_blob(&self, blob: &Digest) -> Result<u64, Error> {
        let (file, _) = self.open_blob(blob)?;
        let path = self.path_of(blob)?;
        let failed = |source| Error::io("read", &path, source);
        let identity = Identity::of(&file.metadata().map_err(failed)?);
        let mut hashing = Hashing::like(blob, file);
        let error = match io::copy(&mut hashing, &mut io::sink()) {
            Err(error) if !is_damage(&error) => return Err(failed(error)),
            Err(error) => failed(error),
            Ok(bytes) => match hashing.hasher.finish() {
                actual if actual == *blob => return Ok(bytes),
                actual => Error::DigestMismatch {
                    what: "a stored blob".to_owned(),
                    expected: blob.clone(),
                    actual,
                },
            },
        };
        tracing::error!(%blob, %error, "the disk has damaged a blob: the blob is removed; send or pull its image again");
        let _lock = self.lock()?;
        self.remove_if_same(blob, identity)?;
        Err(error)
    }

    /// Passes on what was read of these blobs. After a digest mismatch it verifies each of them, and so removes those
    /// that the disk has damaged.
    pub(crate) fn removing_damaged<T>(
        &self,
        read: Result<T, Error>,
        blobs: &[Digest],
    ) -> Result<T, Error> {
        let Err(error) = &read else { return read };
        if error.code() != "digest_mismatch" {
            return read;
        }
        let named = match error {
            Error::DigestMismatch { expected, .. } => Some(expected),
            _ => None,
        };
        for blob in blobs.iter().chain(named) {
            match self.verify_blob(blob) {
                Ok(_) => {}
                // It was removed, or is the digest of a blob's decompressed content.
                Err(error) if matches!(error.code(), "digest_mismatch" | "not_found") => {}
                Err(error) => return Err(error),
            }
        }
        read
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub(crate) fn outlines(&self) -> &Outlines {
        &self.inner.outlines
    }

    pub(crate) fn announcer(&self, listener: BlobListener) -> Announcer {
        self.inner.pending.announcer(listener)
    }

    /// The file of a stored blob; `not_found` if it is not stored.
    pub(crate) fn blob_path(&self, blob: &Digest) -> Result<PathBuf, Error> {
        let path = self.path_of(blob)?;
        match path.exists() {
            true => Ok(path),
            false => Err(Error::NotFound(blob.clone())),
        }
    }

    /// Makes synced blobs of an ingest visible, all or none.
    pub(crate) fn publish(&self, ingest: &Ingest, blobs: &[Digest]) -> Result<(), Error> {
        let _lock = self.lock()?;
        ingest.publish(blobs, &self.inner.blobs)
    }

    /// Removes the blobs of a snapshot that are not `kept` and have not changed since; returns the bytes freed.
    pub(crate) fn remove_unchanged(
        &self,
        snapshot: Snapshot,
        kept: &HashSet<Digest>,
    ) -> Result<u64, Error> {
        let _lock = self.lock()?;
        let mut freed_bytes = 0;
        for (digest, identity) in snapshot.0 {
            if !kept.contains(&digest) {
                freed_bytes += self.remove_if_same(&digest, identity)?;
            }
        }
        Ok(freed_bytes)
    }

    fn verified(&self) -> MutexGuard<'_, HashMap<Digest, (Identity, Instant)>> {
        let verified = self.inner.verified.lock();
        verified.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn new_ingest(&self) -> Result<Ingest, Error> {
        Ok(Ingest::new(Scratch::create(&self.inner.ingest)?))
    }

    fn path_of(&self, digest: &Digest) -> Result<PathBuf, Error> {
        path_in(&self.inner.blobs, digest)
    }

    /// Held until it is dropped.
    fn lock(&self) -> Result<File, Error> {
        let blobs = &self.inner.blobs;
        let locked = File::open(blobs).and_then(|directory| {
            flock(&directory, FlockOperation::LockExclusive)?;
            Ok(directory)
        });
        locked.map_err(|source| Error::io("lock", blobs, source))
    }

    /// Makes a stored blob a new one for a garbage collection under way. Returns whether it is stored.
    fn touch(&self, digest: &Digest) -> Result<bool, Error> {
        let path = self.path_of(digest)?;
        let _lock = self.lock()?;
        let touched = File::open(&path)
            .and_then(|file| file.set_times(FileTimes::new().set_modified(SystemTime::now())));
        match touched {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("touch", &path, error)),
        }
    }

    /// Every stored blob as it is now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        let mut found = HashMap::new();
        for (algorithm, _) in ALGORITHMS {
            let blobs = self.inner.blobs.join(algorithm);
            let failed = |source| Error::io("list", &blobs, source);
            for entry in fs::read_dir(&blobs).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let digest = entry.file_name().to_str().and_then(from_hex);
                // Files with other names do not belong to the store; a blob that has vanished needs no removal.
                if let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) {
                    found.insert(digest, Identity::of(&metadata));
                }
            }
        }
        Ok(Snapshot(found))
    }

    fn remove_if_same(&self, digest: &Digest, identity: Identity) -> Result<u64, Error> {
        let path = self.path_of(digest)?;
        let remove = || -> io::Result<u64> {
            let metadata = fs::symlink_metadata(&path)?;
            if Identity::of(&metadata) != identity {
                return Ok(0);
            }
            fs::remove_file(&path)?;
            Ok(metadata.len())
        };
        match remove() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            removed => removed.map_err(|source| Error::io("remove", &path, source)),
        }
    }
}

fn open_sized(path: &Path, blob: &Digest) -> Result<(File, u64), Error> {
    let open = || {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    };
    open().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(blob.clone()),
        _ => Error::io("read", path, error),
    })
}

impl Blobs for Store {
    fn find(&self, digest: &Digest) -> Result<Option<(PathBuf, u64)>, Error> {
        let path = self.path_of(digest)?;
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some((path, metadata.len()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }
}

/// The blobs at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot(HashMap<Digest, Identity>);

/// Distinguishes a blob from a later one with the same digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    inode: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Creates a directory with mode 0700: images may hold secrets, and layers set-uid programs.
pub(crate) fn create_private(directory: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| Error::io("make", directory, source))
}
