//! Blobs on their way into the store: written to a scratch directory while they are hashed, and made
//! visible together once all of them are whole and on disk.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use oci_spec::image::{Descriptor, Digest};

use crate::{
    coming::Announcer,
    digest::{ALGORITHMS, Hasher, algorithm, hex},
    early::{self, CheckedLayer},
    error::Error,
    limits::Limits,
    scratch::Scratch,
    writeback,
};

const BUFFER_BYTES: usize = 256 << 10;

/// Blobs by digest, of a store or of what is on its way there.
pub(crate) trait Blobs {
    /// Where a blob is and its size in bytes; `None` if it is not there.
    fn find(&self, digest: &Digest) -> Result<Option<(PathBuf, u64)>, Error>;
}

/// Blobs that nobody else sees yet. Dropped, they vanish.
#[derive(Debug)]
pub(crate) struct Ingest {
    scratch: Scratch,
    bytes: HashMap<Digest, u64>,
    announcer: Option<Announcer>,
    checked: HashMap<Digest, CheckedLayer>,
}

impl Blobs for Ingest {
    fn find(&self, digest: &Digest) -> Result<Option<(PathBuf, u64)>, Error> {
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
            checked: HashMap::new(),
        }
    }

    /// Tells of each blob from now on, as soon as it is whole.
    pub(crate) fn announce(&mut self, announcer: Announcer) {
        self.announcer = Some(announcer);
    }

    fn has_come(&mut self, digest: &Digest, path: &Path, bytes: u64) {
        self.bytes.insert(digest.clone(), bytes);
        if let Some(announcer) = &mut self.announcer {
            announcer.announce(digest, path, bytes);
        }
    }

    /// Takes a blob from `read`, which gives 0 at its end, and checks that it is what its digest says.
    pub(crate) fn take(
        &mut self,
        digest: &Digest,
        read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        // A second blob of the same name replaces the first: one of them has another digest, or they are equal.
        let (actual, bytes) = write(&self.path_of(digest)?, Hasher::like(digest), read)?;
        self.took(digest, actual, bytes)
    }

    /// Like [`Ingest::take`], of a blob of so many bytes that may be a layer: one that is compressed is checked as such
    /// while it comes.
    pub(crate) fn take_and_check(
        &mut self,
        digest: &Digest,
        bytes: u64,
        read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
        limits: &Limits,
    ) -> Result<(), Error> {
        if self.checked.len() >= limits.layers {
            return self.take(digest, read);
        }
        let path = self.path_of(digest)?;
        let (taken, checked) = early::check_beside(digest, bytes, limits, read, |read| {
            let file = create(&path)?;
            writeback::file_beside(&file, || fill(&file, &path, Hasher::like(digest), read))
        });
        let (actual, bytes) = taken?;
        self.took(digest, actual, bytes)?;
        if let Some(checked) = checked {
            self.checked.insert(digest.clone(), checked);
        }
        Ok(())
    }

    /// Whether this layer was found to be what it should be while it came.
    pub(crate) fn is_checked(&self, layer: &Descriptor, diff_id: &Digest) -> bool {
        let checked = self.checked.get(layer.digest());
        checked.is_some_and(|checked| checked.is(layer, diff_id))
    }

    fn took(&mut self, digest: &Digest, actual: Digest, bytes: u64) -> Result<(), Error> {
        if actual != *digest {
            let what = "a blob".to_owned();
            return Err(Error::DigestMismatch {
                what,
                expected: digest.clone(),
                actual,
            });
        }
        let path = self.path_of(digest)?;
        self.has_come(digest, &path, bytes);
        Ok(())
    }

    /// Takes a blob whose digest nobody has told; its digest.
    pub(crate) fn take_any(
        &mut self,
        read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
    ) -> Result<Digest, Error> {
        let incoming = self.scratch.path().join("incoming");
        let (digest, bytes) = write(&incoming, Hasher::default(), read)?;
        let path = self.path_of(&digest)?;
        fs::rename(&incoming, &path).map_err(|source| Error::io("make", &path, source))?;
        self.has_come(&digest, &path, bytes);
        Ok(digest)
    }

    /// Takes these bytes as a blob; its digest.
    pub(crate) fn put(&mut self, mut blob: &[u8]) -> Result<Digest, Error> {
        self.take_any(|buffer| {
            blob.read(buffer)
                .map_err(|source| Error::io("read", Path::new("a blob"), source))
        })
    }

    /// Moves these blobs into the directory `blobs`, in order, after they are on disk. The caller keeps
    /// others from changing that directory meanwhile. If it fails, none of them has come to it.
    pub(crate) fn commit(&self, digests: &[Digest], blobs: &Path) -> Result<(), Error> {
        self.sync(digests)?;
        self.publish(digests, blobs)
    }

    /// Waits until these blobs are on disk.
    pub(crate) fn sync(&self, digests: &[Digest]) -> Result<(), Error> {
        for digest in digests {
            let path = self.path_of(digest)?;
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|source| Error::io("sync", &path, source))?;
        }
        Ok(())
    }

    /// Like [`Ingest::commit`], of blobs that are on disk already.
    pub(crate) fn publish(&self, digests: &[Digest], blobs: &Path) -> Result<(), Error> {
        let mut added = Vec::new();
        let moved = self.move_all(digests, blobs, &mut added);
        if moved.is_err() {
            for path in added {
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "cannot take back a blob");
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

/// Where a blob of this digest belongs, in a store's directory of blobs.
pub(crate) fn path_in(blobs: &Path, digest: &Digest) -> Result<PathBuf, Error> {
    Ok(blobs.join(algorithm(digest)?).join(hex(digest)?))
}

/// Waits until the names of the blobs are on disk.
pub(crate) fn sync_blobs(blobs: &Path) -> Result<(), Error> {
    for (name, _) in ALGORITHMS {
        let directory = blobs.join(name);
        let synced = File::open(&directory).and_then(|directory| directory.sync_all());
        synced.map_err(|source| Error::io("sync", &directory, source))?;
    }
    Ok(())
}

/// Writes what comes to a file; its digest and its size in bytes.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_of;
    use oci_spec::image::MediaType;
    use tucano_image_builder::{Compression, Entry, Layer};

    #[test]
    fn no_more_layers_are_checked_early_than_an_image_may_have() {
        let place = tempfile::tempdir().unwrap();
        let mut ingest = Ingest::new(Scratch::create(place.path()).unwrap());
        let limits = Limits {
            layers: 1,
            ..Limits::default()
        };
        for (name, is_checked) in [("a", true), ("b", false)] {
            let layer = Layer::new(&[Entry::file(name, "")], Compression::Gzip).unwrap();
            let (digest, bytes) = (digest_of(&layer.blob), layer.blob.len() as u64);
            let mut left = &layer.blob[..];
            let read = |buffer: &mut [u8]| Ok(left.read(buffer).unwrap());
            ingest
                .take_and_check(&digest, bytes, read, &limits)
                .unwrap();
            let descriptor = Descriptor::new(MediaType::ImageLayerGzip, bytes, digest.clone());
            let diff_id = layer.diff_id.parse().unwrap();
            assert_eq!(
                ingest.is_checked(&descriptor, &diff_id),
                is_checked,
                "{name}"
            );
            assert!(ingest.find(&digest).unwrap().is_some(), "{name}");
        }
    }
}
