//! Encryption of the repository's format, for the few files that this program writes past rustic_core.

use aes256ctr_poly1305aes::{
    Aes256CtrPoly1305Aes, Key, Nonce,
    aead::{Aead, AeadInPlace},
};
use rustic_core::{Id, repofile::MasterKey};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};

use crate::Failure;

const NONCE_BYTES: usize = 16;

/// The repository's key.
pub(super) struct Seal(Aes256CtrPoly1305Aes);

impl Seal {
    pub(super) fn new(key: &MasterKey) -> Result<Self, Failure> {
        let parts = [&key.encrypt[..], &key.mac.k, &key.mac.r].concat();
        let key = Key::from_exact_iter(parts);
        let key = key.ok_or_else(|| Failure::internal("a key of another length"))?;
        Ok(Self(Aes256CtrPoly1305Aes::new(&key)))
    }

    /// A nonce, the encrypted content, its authentication.
    pub(super) fn seal(&self, content: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut nonce = Nonce::default();
        random(&mut nonce)?;
        let mut sealed = [&nonce[..], content].concat();
        let tag = self
            .0
            .encrypt_in_place_detached(&nonce, &[], &mut sealed[NONCE_BYTES..])
            .map_err(|_| Failure::internal("nothing can be encrypted"))?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// The content; none if it is not of this repository, or was changed.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, content) = sealed.split_at_checked(NONCE_BYTES)?;
        self.0.decrypt(Nonce::from_slice(nonce), content).ok()
    }
}

/// The id that content has in the repository.
pub(super) fn id(content: &[u8]) -> Id {
    let digest: [u8; 32] = Sha256::digest(content).into();
    Id::new(digest)
}

fn random(bytes: &mut [u8]) -> Result<(), Failure> {
    // The kernel gives this few bytes at once.
    match getrandom(&mut *bytes, GetRandomFlags::empty()) {
        Ok(length) if length == bytes.len() => Ok(()),
        Ok(_) => Err(Failure::internal("the kernel gave too few random bytes")),
        Err(error) => Err(Failure::internal(format!("no random bytes: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_not_opened() {
        let seal = Seal::new(&MasterKey::new()).expect("a key");
        let mut sealed = seal.seal(b"content").expect("sealed");
        assert_eq!(seal.open(&sealed).as_deref(), Some(&b"content"[..]));
        assert_ne!(seal.seal(b"content").expect("sealed"), sealed);
        sealed[20] ^= 1;
        assert_eq!(seal.open(&sealed), None);
        assert_eq!(seal.open(b"short"), None);
    }
}
