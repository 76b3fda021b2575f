//! SHA-256 digests of what streams by.

use std::io::{self, Read};

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// A digest in the making, and how much went into it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hasher {
    sha256: Sha256,
    /// Bytes so far.
    pub(crate) bytes: u64,
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub(crate) fn finish(self) -> Digest {
        digest_of_hash(&self.sha256.finalize())
    }
}

/// Hashes what is read through it.
#[derive(Debug)]
pub(crate) struct Hashing<R> {
    inner: R,
    pub(crate) hasher: Hasher,
}

impl<R> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::default(),
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
    digest_of_hash(&Sha256::digest(bytes))
}

/// The hexadecimal part, which is also a blob's file name.
///
/// # Errors
/// For any algorithm but SHA-256, the one in use.
pub(crate) fn hex(digest: &Digest) -> Result<&str, Error> {
    match digest.algorithm() {
        DigestAlgorithm::Sha256 => Ok(digest.digest()),
        _ => Err(Error::Unsupported {
            what: format!("the digest {digest}"),
            hint: "; make the image with sha256 digests",
        }),
    }
}

/// A digest from a blob's file name.
pub(crate) fn from_hex(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}

fn digest_of_hash(hash: &[u8]) -> Digest {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::from("sha256:");
    for byte in hash {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text.parse()
        .unwrap_or_else(|_| unreachable!("64 hexadecimal digits are a SHA-256 digest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_is_read_is_hashed_and_counted() {
        assert_eq!(digest_of(b"").to_string(), EMPTY);
        let mut stream = Hashing::new(&b"abc"[..]);
        io::copy(&mut stream, &mut io::sink()).unwrap();
        assert_eq!(stream.hasher.bytes, 3);
        assert_eq!(stream.hasher.finish(), digest_of(b"abc"));
    }

    #[test]
    fn only_sha256_names_files() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(from_hex(hex(&digest).unwrap()), Some(digest));
        let other: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
        assert_eq!(hex(&other).unwrap_err().code(), "unsupported");
        for bad in ["", "abc", "../../etc/passwd"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }
}
