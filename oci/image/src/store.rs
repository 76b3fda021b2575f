//! The content-addressed store: `blobs/sha256/<hex>`, `blobs/sha512/<hex>`, and `ingest/` for what is not whole yet.
//!
//! A blob is written once, under its digest, and never changed. Whoever adds or removes blobs holds a
//! lock (flock) on their directory, also between programs. Collecting is safe beside imports: it takes
//! only what was there, and as it was, when it began; adding a blob again makes it a new one.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, FileTimes, Metadata},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use oci_spec::image::{Descriptor, Digest, DigestAlgorithm, ImageManifest};
use rustix::fs::{FlockOperation, flock};

use crate::{
    archive,
    coming::{Coming, Told},
    digest::{ALGORITHMS, Hashing, digest_of, from_hex},
    directory, document,
    error::Error,
    image::{Image, Platform, read_document},
    ingest::{Blobs, Ingest, path_in, sync_blobs},
    layer::{CheckOnly, LayerBlob, LayerOf},
    limits::Limits,
    names::Wanted,
    parallel, pushed,
    resolve::Wish,
    scratch::{self, Scratch},
    seal::is_damage,
    upload::Upload,
};

/// Content-addressed blobs in a directory: `blobs/sha256/<hex>`, `blobs/sha512/<hex>`, and `ingest/` for what is not whole yet.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    blobs: PathBuf,
    ingest: PathBuf,
    limits: Limits,
    coming: Coming,
    /// Blobs that were read and found whole, and when.
    checked: Mutex<HashMap<Digest, (Identity, Instant)>>,
}

/// How long a blob that was checked is believed to be whole by those who give it to others.
const BELIEVED: Duration = Duration::from_secs(3600);

impl Store {
    /// Opens or creates the store in `root` and removes what an earlier run left unfinished.
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
                coming: Coming::default(),
                checked: Mutex::default(),
            }),
        })
    }

    /// Takes an archive: an OCI layout as a tar stream, or what `docker save` and `podman save` write; plain, or
    /// compressed with gzip or zstd. Each blob's digest, every layer's diff-id and every path in it are checked;
    /// nothing is visible until everything is whole and synced. Returns the image for `platform`.
    ///
    /// # Errors
    /// See [`Error::code`]. No trace of the archive remains then.
    pub fn import_archive(&self, archive: impl Read, platform: &Platform) -> Result<Image, Error> {
        self.import_archive_named(archive, platform, None)
    }

    /// Like [`Store::import_archive`], of an archive that may hold several images: takes the one of this name, which
    /// is a tag, `name:tag`, `name` (with the tag `latest`), with or without its registry, or its digest.
    ///
    /// # Errors
    /// `no_such_image` with the names that are there if the name is none of them, `several_images` if there is more
    /// than one to choose from; otherwise see [`Error::code`]. No trace of the archive remains then.
    pub fn import_archive_named(
        &self,
        archive: impl Read,
        platform: &Platform,
        name: Option<&str>,
    ) -> Result<Image, Error> {
        self.import_archive_told(archive, platform, name, None)
    }

    /// Like [`Store::import_archive_named`]; `told` hears of each blob, with its size in bytes, as soon as it is whole and
    /// checked: from then on, until the import ends, it can be had by [`Store::open_coming`].
    ///
    /// # Errors
    /// As there.
    pub fn import_archive_told(
        &self,
        archive: impl Read,
        platform: &Platform,
        name: Option<&str>,
        told: Option<Told>,
    ) -> Result<Image, Error> {
        let wish = Wish {
            platform,
            name: Wanted::new(name),
        };
        self.import(|ingest, limits| {
            if let Some(told) = told {
                ingest.announce(self.inner.coming.announcer(told));
            }
            archive::receive(archive, ingest, wish, limits)
        })
    }

    /// The content, and the size in bytes, of a blob that an import under way has brought, and that may never become one
    /// of the store's.
    ///
    /// # Errors
    /// `not_found` if no import has; else why it cannot be read.
    pub fn open_coming(&self, blob: &Digest) -> Result<(File, u64), Error> {
        let missing = || Error::NotFound(blob.clone());
        let path = self.inner.coming.find(blob).ok_or_else(missing)?;
        open_sized(&path, blob)
    }

    /// Takes an image from a directory that is an OCI layout, with the checks of an archive; `name` as for
    /// [`Store::import_archive_named`].
    ///
    /// # Errors
    /// As for an archive.
    pub fn import_directory(
        &self,
        layout: &Path,
        platform: &Platform,
        name: Option<&str>,
    ) -> Result<Image, Error> {
        let wish = Wish {
            platform,
            name: Wanted::new(name),
        };
        self.import(|ingest, limits| directory::receive(layout, ingest, wish, limits))
    }

    /// Takes one blob, checked against its digest; already stored is fine.
    ///
    /// # Errors
    /// If the content has another digest, is longer than `archive_bytes`, or cannot be read or stored.
    pub fn ingest_blob(&self, digest: &Digest, blob: impl Read) -> Result<(), Error> {
        if self.renew(digest)? {
            return Ok(());
        }
        let mut ingest = self.new_ingest()?;
        ingest.take(digest, archive::bounded(blob, &self.inner.limits))?;
        let _lock = self.lock()?;
        ingest.commit(std::slice::from_ref(digest), &self.inner.blobs)
    }

    /// The image whose manifest has this digest.
    ///
    /// # Errors
    /// `not_found` if the manifest is not stored; otherwise as for an archive's documents.
    pub fn image(&self, manifest: &Digest) -> Result<Image, Error> {
        if !self.contains(manifest) {
            return Err(Error::NotFound(manifest.clone()));
        }
        let read = Image::read(self, manifest, &self.inner.limits);
        self.without_damaged(read, std::slice::from_ref(manifest))
    }

    /// Begins a blob that comes in pieces.
    ///
    /// # Errors
    /// If its file cannot be made.
    pub fn begin_upload(&self) -> Result<Upload, Error> {
        Upload::new(Scratch::create(&self.inner.ingest)?)
    }

    /// Stores a blob that came in pieces under its digest, on disk when this returns; already stored is fine.
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

    /// The image for `platform` that a stored document means: a manifest itself, or one that an index names.
    ///
    /// # Errors
    /// `not_found` if the document is not stored; otherwise as for an archive's documents.
    pub fn resolve(&self, document: &Digest, platform: &Platform) -> Result<Image, Error> {
        if !self.contains(document) {
            return Err(Error::NotFound(document.clone()));
        }
        let read = pushed::resolve(self, document, platform, &self.inner.limits);
        self.without_damaged(read, std::slice::from_ref(document))
    }

    /// The SHA-256 digest of a stored document, under which it is stored too from then on.
    ///
    /// # Errors
    /// `not_found` if the document is not stored; otherwise why it cannot be read or stored.
    pub fn by_sha256(&self, document: &Digest) -> Result<Digest, Error> {
        if *document.algorithm() == DigestAlgorithm::Sha256 {
            return Ok(document.clone());
        }
        let bytes = read_document(self, "a document", document, None, &self.inner.limits)?;
        let digest = digest_of(&bytes);
        self.ingest_blob(&digest, &bytes[..])?;
        Ok(digest)
    }

    /// Checks the layers of an image whose blobs came one by one, as those of an archive are when it comes in: each
    /// one's digest and diff-id, and every path in it. Reads all of them.
    ///
    /// # Errors
    /// What is wrong with which layer.
    pub fn verify(&self, image: &Image) -> Result<(), Error> {
        let read = parallel::for_each(&image.layers(), |(descriptor, diff_id)| {
            self.layer(descriptor, diff_id, &self.inner.limits)?
                .read(&mut CheckOnly)
        });
        self.without_damaged(read.map(drop), &image.blobs())
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

    /// Like [`Store::open_blob`], of a blob for somebody else: what was not checked within the last hour is checked
    /// first, as [`Store::verify_blob`] does.
    ///
    /// # Errors
    /// `digest_mismatch` if the disk has damaged it; `not_found` if it is not stored.
    pub fn open_checked(&self, blob: &Digest) -> Result<(File, u64), Error> {
        let (file, bytes) = self.open_blob(blob)?;
        let path = self.path_of(blob)?;
        let metadata = file.metadata();
        let identity = Identity::of(&metadata.map_err(|source| Error::io("read", &path, source))?);
        let is_known =
            |(known, when): &(Identity, Instant)| *known == identity && when.elapsed() < BELIEVED;
        if self
            .checked()
            .get(blob)
            .is_none_or(|entry| !is_known(entry))
        {
            self.verify_blob(blob)?;
            let mut checked = self.checked();
            checked.retain(|_, (_, when)| when.elapsed() < BELIEVED);
            checked.insert(blob.clone(), (identity, Instant::now()));
        }
        Ok((file, bytes))
    }

    /// Reads a blob and checks that it still is what its digest says; its size in bytes. One that the disk has damaged
    /// is removed, so that it can be taken anew, and the log says so.
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
        tracing::error!(%blob, %error, "the disk has damaged a blob: it is removed; send or pull its image again");
        let _lock = self.lock()?;
        self.remove_if_same(blob, identity)?;
        Err(error)
    }

    /// Removes every blob that none of these images refers to, and that was stored before the call; returns the
    /// bytes freed. Safe beside imports. An image that is not stored is passed over.
    ///
    /// # Errors
    /// If the manifest of one of these images cannot be understood: then nothing is removed.
    pub fn retain(&self, images: &[Digest]) -> Result<u64, Error> {
        self.retain_with(images, HashSet::new())
    }

    /// As [`Store::retain`], and keeps these `blobs` too.
    ///
    /// # Errors
    /// As [`Store::retain`].
    pub fn retain_with(&self, images: &[Digest], blobs: HashSet<Digest>) -> Result<u64, Error> {
        let found = self.list()?;
        let mut kept = blobs;
        for image in images {
            kept.extend(self.references(image)?);
        }
        let _lock = self.lock()?;
        let mut freed_bytes = 0;
        for (digest, identity) in found
            .into_iter()
            .filter(|(digest, _)| !kept.contains(digest))
        {
            freed_bytes += self.remove_if_same(&digest, identity)?;
        }
        Ok(freed_bytes)
    }

    /// What was read of these blobs. If something was not what its digest says, the disk may have damaged it: what is
    /// damaged is removed, so that it can be taken anew.
    fn without_damaged<T>(&self, read: Result<T, Error>, blobs: &[Digest]) -> Result<T, Error> {
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
                // It was removed, or is no stored blob but what one contains.
                Err(error) if matches!(error.code(), "digest_mismatch" | "not_found") => {}
                Err(error) => return Err(error),
            }
        }
        read
    }

    fn checked(&self) -> MutexGuard<'_, HashMap<Digest, (Identity, Instant)>> {
        let checked = self.inner.checked.lock();
        checked.unwrap_or_else(PoisonError::into_inner)
    }

    /// A stored layer, to be read.
    pub(crate) fn layer<'a>(
        &self,
        descriptor: &'a Descriptor,
        diff_id: &'a Digest,
        limits: &'a Limits,
    ) -> Result<LayerBlob<'a>, Error> {
        if !self.contains(descriptor.digest()) {
            return Err(Error::NotFound(descriptor.digest().clone()));
        }
        let path = self.path_of(descriptor.digest())?;
        Ok(LayerBlob {
            path,
            layer: LayerOf {
                descriptor,
                diff_id: Some(diff_id),
                limits,
            },
        })
    }

    fn import(
        &self,
        receive: impl FnOnce(&mut Ingest, &Limits) -> Result<Image, Error>,
    ) -> Result<Image, Error> {
        let mut ingest = self.new_ingest()?;
        let image = receive(&mut ingest, &self.inner.limits)?;
        let _lock = self.lock()?;
        // They were synced while they were checked.
        ingest.publish(&image.blobs(), &self.inner.blobs)?;
        Ok(image)
    }

    fn new_ingest(&self) -> Result<Ingest, Error> {
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

    /// Makes a stored blob a new one for those who collect; whether it is stored.
    fn renew(&self, digest: &Digest) -> Result<bool, Error> {
        let path = self.path_of(digest)?;
        let _lock = self.lock()?;
        let renewed = File::open(&path)
            .and_then(|file| file.set_times(FileTimes::new().set_modified(SystemTime::now())));
        match renewed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("renew", &path, error)),
        }
    }

    fn list(&self) -> Result<HashMap<Digest, Identity>, Error> {
        let mut found = HashMap::new();
        for (algorithm, _) in ALGORITHMS {
            let blobs = self.inner.blobs.join(algorithm);
            let failed = |source| Error::io("list", &blobs, source);
            for entry in fs::read_dir(&blobs).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let digest = entry.file_name().to_str().and_then(from_hex);
                // What has another name is not ours to remove; what is gone meanwhile needs no removal.
                if let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) {
                    found.insert(digest, Identity::of(&metadata));
                }
            }
        }
        Ok(found)
    }

    /// The image's blobs, so far as they are known: its configuration may not have come yet.
    fn references(&self, image: &Digest) -> Result<Vec<Digest>, Error> {
        if !self.contains(image) {
            return Ok(Vec::new());
        }
        let what = "an image's manifest";
        let bytes = read_document(self, what, image, None, &self.inner.limits)?;
        let manifest: ImageManifest = document::parse(what, &bytes)?;
        let blobs = manifest.layers().iter().chain([manifest.config()]);
        Ok(blobs
            .map(|blob| blob.digest().clone())
            .chain([image.clone()])
            .collect())
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

/// Tells a blob from a later one of the same digest.
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

/// Makes a directory that is the owner's alone: images may hold secrets, and layers set-uid programs.
pub(crate) fn create_private(directory: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| Error::io("make", directory, source))
}
