//! A blob that is written in pieces, whose digest is known at the end.

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

/// An incomplete blob, which is not visible in the store. It is removed on drop, or by the next start after a crash.
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

    /// Appends these bytes.
    ///
    /// # Errors
    /// If they cannot be written; the upload cannot be continued then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(bytes)
            .map_err(|source| Error::io("write", &self.path(), source))?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// The number of bytes written.
    pub fn bytes(&self) -> u64 {
        self.hasher.bytes
    }

    /// Checks the digest and syncs the file; returns its path. Dropping the second value removes it.
    pub(crate) fn finish(self, expected: &Digest) -> Result<(PathBuf, Scratch), Error> {
        let path = self.path();
        let actual = match expected.algorithm() {
            DigestAlgorithm::Sha256 => self.hasher.finish(),
            // The algorithm was not known during the transfer, and other algorithms are rare.
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

    /// Its file, until the upload is finished or dropped.
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
