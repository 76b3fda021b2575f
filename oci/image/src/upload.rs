//! A blob that comes in pieces, its digest known only at the end.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use oci_spec::image::{Digest, DigestAlgorithm};

use crate::{
    digest::{Hasher, Hashing},
    error::Error,
    scratch::Scratch,
};

/// Name of the file within its scratch directory.
const FILE: &str = "blob";

/// A blob on its way into the store, seen by nobody else. Dropped, or left behind by a program that was killed, it
/// vanishes.
#[derive(Debug)]
pub struct Upload {
    scratch: Scratch,
    file: File,
    hasher: Hasher,
}

impl Upload {
    pub(crate) fn new(scratch: Scratch) -> Result<Self, Error> {
        let path = scratch.path().join(FILE);
        let file = File::create(&path).map_err(|source| Error::io("write", &path, source))?;
        Ok(Self {
            scratch,
            file,
            hasher: Hasher::default(),
        })
    }

    /// Adds these bytes to its end.
    ///
    /// # Errors
    /// If they cannot be written; it is of no use any more then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(bytes)
            .map_err(|source| Error::io("write", &self.path(), source))?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.hasher.bytes
    }

    /// Its file, synced, if it is what `expected` says. The directory is gone when the second value is dropped.
    pub(crate) fn finish(self, expected: &Digest) -> Result<(PathBuf, Scratch), Error> {
        let path = self.path();
        let actual = match expected.algorithm() {
            DigestAlgorithm::Sha256 => self.hasher.finish(),
            // Rare enough to be read once more: while it came in, nobody had told which it would be.
            _ => hash_again(&path, expected)?,
        };
        if actual != *expected {
            return Err(Error::DigestMismatch {
                what: "the blob".to_owned(),
                expected: expected.clone(),
                actual,
            });
        }
        self.file
            .sync_all()
            .map_err(|source| Error::io("sync", &path, source))?;
        Ok((path, self.scratch))
    }

    /// Its file; gone when it is stored or dropped.
    pub fn path(&self) -> PathBuf {
        self.scratch.path().join(FILE)
    }
}

fn hash_again(path: &Path, expected: &Digest) -> Result<Digest, Error> {
    let hash = || -> io::Result<Digest> {
        let mut hashing = Hashing::like(expected, File::open(path)?);
        io::copy(&mut hashing, &mut io::sink())?;
        Ok(hashing.hasher.finish())
    };
    hash().map_err(|source| Error::io("read", path, source))
}
