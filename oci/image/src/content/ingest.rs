//! Blobs that are being stored: hashed and written to a scratch directory, and made visible together once all of them
//! are complete and synced.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use oci_spec::image::Digest;

use crate::{
    content::pending::Announcer,
    digest::{ALGORITHMS, Hasher, algorithm, hex},
    error::Error,
    scratch::Scratch,
    writeback,
};

const BUFFER_BYTES: usize = 256 << 10;

/// Looks up blobs by digest, in a store or in an ingest.
pub(crate) trait Blobs {
    /// A blob's file and its size in bytes; `None` if it is missing.
    fn find(&self, digest: &Digest) -> Result<Option<(PathBuf, u64)>, Error>;
}

/// Blobs that are not visible yet. They vanish when it is dropped.
#[derive(Debug)]
pub(crate) struct Ingest {
    scratch: Scratch,
    bytes: HashMap<Digest, u64>,
    announcer: Option<Announcer>,
}

impl Blobs for Ingest {
    fn find(&self, digest: &Digest) -> Result<Option<(PathBuf, u64)>, Error> {
        // Names an unknown algorithm instead of a missing blob.
        algorithm(digest)?;
        let Some(bytes) = self.bytes.get(digest) else {
            return Ok(None);
        };
        Ok(Some((self.path_of(digest)?, *bytes)))
    }
}

impl Ingest {
    pub(crate) fn new(scratch: Scratch) -> Self {
        Self {
            scratch,
            bytes: HashMap::new(),
            announcer: None,
        }
    }

    /// Announces each blob from now on, as soon as it is complete.
    pub(crate) fn announce(&mut self, announcer: Announcer) {
        self.announcer = Some(announcer);
    }

    fn add(&mut self, digest: &Digest, path: &Path, bytes: u64) {
        self.bytes.insert(digest.clone(), bytes);
        if let Some(announcer) = &mut self.announcer {
            announcer.announce(digest, path, bytes);
        }
    }

    /// Receives a blob from `read`, which returns 0 at its end, and checks its digest.
    pub(crate) fn receive(
        &mut self,
        digest: &Digest,
        read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        // A second blob with the same name replaces the first: they are equal, or one of them fails this check.
        let (actual, bytes) = write(&self.path_of(digest)?, Hasher::like(digest), read)?;
        self.finish(digest, actual, bytes)
    }

    /// Like [`Ingest::receive`], for a large blob: the file is flushed to disk during the transfer.
    pub(crate) fn receive_flushing(
        &mut self,
        digest: &Digest,
        read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        let path = self.path_of(digest)?;
        let file = create(&path)?;
        let write = || fill(&file, &path, Hasher::like(digest), read);
        let (actual, bytes) = writeback::while_flushing_file(&file, write)?;
        self.finish(digest, actual, bytes)
    }

    fn finish(&mut self, digest: &Digest, actual: Digest, bytes: u64) -> Result<(), Error> {
        if actual != *digest {
            let what = "a blob".to_owned();
            return Err(Error::DigestMismatch {
                what,
                expected: digest.clone(),
                actual,
            });
        }
        let path = self.path_of(digest)?;
        self.add(digest, &path, bytes);
        Ok(())
    }

    /// Receives a blob of unknown digest, and returns its digest.
    pub(crate) fn receive_unnamed(
        &mut self,
        read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
    ) -> Result<Digest, Error> {
        let incoming = self.scratch.path().join("incoming");
        let (digest, bytes) = write(&incoming, Hasher::default(), read)?;
        let path = self.path_of(&digest)?;
        fs::rename(&incoming, &path).map_err(|source| Error::io("make", &path, source))?;
        self.add(&digest, &path, bytes);
        Ok(digest)
    }

    /// Adds these bytes as a blob, and returns its digest.
    pub(crate) fn insert(&mut self, mut blob: &[u8]) -> Result<Digest, Error> {
        self.receive_unnamed(|buffer| {
            blob.read(buffer)
                .map_err(|source| Error::io("read", Path::new("a blob"), source))
        })
    }

    /// Syncs these blobs to disk.
    pub(crate) fn sync(&self, digests: &[Digest]) -> Result<(), Error> {
        for digest in digests {
            let path = self.path_of(digest)?;
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|source| Error::io("sync", &path, source))?;
        }
        Ok(())
    }

    /// Moves these synced blobs into the directory `blobs`, in order; all or none. The caller holds the store's lock.
    pub(crate) fn publish(&self, digests: &[Digest], blobs: &Path) -> Result<(), Error> {
        let mut added = Vec::new();
        let moved = self.move_all(digests, blobs, &mut added);
        if moved.is_err() {
            for path in added {
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a blob of a failed import");
                }
            }
        }
        moved
    }

    fn move_all(
        &self,
        digests: &[Digest],
        blobs: &Path,
        added: &mut Vec<PathBuf>,
    ) -> Result<(), Error> {
        for digest in digests {
            let (from, to) = (self.path_of(digest)?, path_in(blobs, digest)?);
            let is_new = !to.exists();
            fs::rename(from, &to).map_err(|source| Error::io("make", &to, source))?;
            if is_new {
                added.push(to);
            }
        }
        sync_blobs(blobs)
    }

    fn path_of(&self, digest: &Digest) -> Result<PathBuf, Error> {
        Ok(self.scratch.path().join(hex(digest)?))
    }
}

/// The path of a blob in a store's directory of blobs.
pub(crate) fn path_in(blobs: &Path, digest: &Digest) -> Result<PathBuf, Error> {
    Ok(blobs.join(algorithm(digest)?).join(hex(digest)?))
}

/// Syncs the directories of blobs.
pub(crate) fn sync_blobs(blobs: &Path) -> Result<(), Error> {
    for (name, _) in ALGORITHMS {
        let directory = blobs.join(name);
        let synced = File::open(&directory).and_then(|directory| directory.sync_all());
        synced.map_err(|source| Error::io("sync", &directory, source))?;
    }
    Ok(())
}

/// Writes a stream to a file; returns its digest and its size in bytes.
fn write(
    path: &Path,
    hasher: Hasher,
    read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
) -> Result<(Digest, u64), Error> {
    fill(&create(path)?, path, hasher, read)
}

fn create(path: &Path) -> Result<File, Error> {
    File::create(path).map_err(|source| Error::io("write", path, source))
}

fn fill(
    mut file: &File,
    path: &Path,
    mut hasher: Hasher,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
) -> Result<(Digest, u64), Error> {
    let failed = |source| Error::io("write", path, source);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = read(&mut buffer)?;
        if read == 0 {
            let bytes = hasher.bytes;
            return Ok((hasher.finish(), bytes));
        }
        hasher.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(failed)?;
    }
}
