//! Digests of streams: SHA-256, and SHA-512 if a descriptor uses it (OCI image specification, "Registered
//! Algorithms").

use std::io::{self, Read};

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::Error;

/// The supported algorithms (also the names of their directories), and the sizes of their hashes in bytes.
pub(crate) const ALGORITHMS: [(&str, usize); 2] = [("sha256", 32), ("sha512", 64)];

/// Computes a digest and counts the bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hasher {
    state: State,
    /// The number of bytes.
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Default for State {
    fn default() -> Self {
        Self::Sha256(Sha256::default())
    }
}

impl Hasher {
    /// Uses the algorithm of the expected digest.
    pub(crate) fn like(digest: &Digest) -> Self {
        let state = match digest.algorithm() {
            DigestAlgorithm::Sha512 => State::Sha512(Box::default()),
            _ => State::default(),
        };
        Self { state, bytes: 0 }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
        self.bytes += bytes.len() as u64;
    }

    pub(crate) fn finish(self) -> Digest {
        match self.state {
            State::Sha256(hash) => digest_of_hash("sha256", &hash.finalize()),
            State::Sha512(hash) => digest_of_hash("sha512", &hash.finalize()),
        }
    }
}

/// Hashes the bytes that are read through it.
#[derive(Debug)]
pub(crate) struct Hashing<R> {
    inner: R,
    pub(crate) hasher: Hasher,
}

impl<R> Hashing<R> {
    /// Uses the algorithm of the expected digest.
    pub(crate) fn like(digest: &Digest, inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::like(digest),
        }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// The SHA-256 digest of some bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    digest_of_hash("sha256", &Sha256::digest(bytes))
}

/// The digest of some bytes by the algorithm of the expected digest.
pub fn digest_like(expected: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::like(expected);
    hasher.update(bytes);
    hasher.finish()
}

/// The hexadecimal part, which is also a blob's file name. Those of different algorithms differ in length.
///
/// # Errors
/// For any algorithm but SHA-256 and SHA-512.
pub(crate) fn hex(digest: &Digest) -> Result<&str, Error> {
    algorithm(digest).map(|_| digest.digest())
}

/// The algorithm, which is also the directory of its blobs.
///
/// # Errors
/// For any algorithm but SHA-256 and SHA-512.
pub(crate) fn algorithm(digest: &Digest) -> Result<&'static str, Error> {
    match digest.algorithm() {
        DigestAlgorithm::Sha256 => Ok("sha256"),
        DigestAlgorithm::Sha512 => Ok("sha512"),
        _ => Err(Error::Unsupported {
            what: format!("the digest {digest}"),
            hint: "; make the image with sha256 digests",
        }),
    }
}

/// A digest from a blob's file name, whose length determines the algorithm.
pub(crate) fn from_hex(hex: &str) -> Option<Digest> {
    let is_hash = |(_, bytes): &&(&str, usize)| hex.len() == 2 * bytes;
    let (name, _) = ALGORITHMS.iter().find(is_hash)?;
    format!("{name}:{hex}").parse().ok()
}

/// A digest from a blob's path in a layout, after `blobs/`; `None` if the algorithm is unknown.
pub(crate) fn from_blob_path(path: &str) -> Option<Result<Digest, &'static str>> {
    let (directory, hex) = path.split_once('/')?;
    let (name, _) = ALGORITHMS.iter().find(|(name, _)| *name == directory)?;
    let digest = from_hex(hex).filter(|digest| digest.algorithm().as_ref() == *name);
    Some(digest.ok_or("is not named by a digest of its directory's algorithm"))
}

fn digest_of_hash(algorithm: &str, hash: &[u8]) -> Digest {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = format!("{algorithm}:");
    for byte in hash {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text.parse()
        .unwrap_or_else(|_| unreachable!("a hash in hexadecimal digits is a digest"))
}

#[cfg(test)]
mod tests;
