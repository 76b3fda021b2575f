//! Authenticated encryption of values: AES-256-GCM with a random nonce. Name and version are authenticated as well, so that a
//! sealed value cannot stand for another.
//!
//! A sealed value is text: `v1.KEY.DATA`, the first 16 hexadecimal digits of the key's SHA-256 sum, and nonce, ciphertext and tag in
//! Base64.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use tucano_api::secrets::SecretVersion;
use tucano_planner::Sealed;
use zeroize::Zeroizing;

use super::key_file::KeyFileError;

pub(super) const KEY_BYTES: usize = 32;
const FORMAT: &str = "v1";

/// A key, and what identifies it.
#[derive(Clone)]
pub(super) struct Key {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    id: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// A value cannot be decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// Its key is not in the key file.
    #[error(
        "secret {0} is encrypted with a key that the key file does not have: restore the key file from its backup. If the key is lost \
         for good, set the secret again with `tucano secret set --key-lost`, or remove it"
    )]
    UnknownKey(SecretVersion),
    /// It was changed, or belongs to another secret.
    #[error("the stored value of secret {0} is damaged: set it again")]
    Damaged(SecretVersion),
}

impl Key {
    pub(super) fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let sum = digest(&SHA256, bytes.as_slice());
        let id = sum.as_ref()[..8].iter().map(|byte| format!("{byte:02x}"));
        Self {
            id: id.collect(),
            bytes,
        }
    }

    pub(super) fn generate() -> Result<Self, KeyFileError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let random = SystemRandom::new().fill(bytes.as_mut_slice());
        random.map_err(|error| KeyFileError::Random(error.to_string()))?;
        Ok(Self::new(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    pub(super) fn seal(
        &self,
        secret: &SecretVersion,
        value: &[u8],
    ) -> Result<Sealed, KeyFileError> {
        let failed = |error: ring::error::Unspecified| KeyFileError::Random(error.to_string());
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(failed)?;
        let mut sealed = Zeroizing::new(Vec::with_capacity(value.len() + AES_256_GCM.tag_len()));
        sealed.extend_from_slice(value);
        let tag = self
            .cipher()
            .and_then(|key| {
                key.seal_in_place_separate_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(context(secret)),
                    &mut sealed,
                )
            })
            .map_err(failed)?;
        let data = [nonce.as_slice(), &sealed, tag.as_ref()].concat();
        let text = format!("{FORMAT}.{}.{}", self.id, BASE64_STANDARD.encode(data));
        Ok(Sealed::from(text))
    }

    fn unseal(&self, secret: &SecretVersion, data: Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = data.split_first_chunk::<NONCE_LEN>()?;
        let mut value = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let context = Aad::from(context(secret));
        let length = self
            .cipher()
            .and_then(|key| Ok(key.open_in_place(nonce, context, &mut value)?.len()))
            .ok()?;
        value.truncate(length);
        Some(value)
    }

    fn cipher(&self) -> Result<LessSafeKey, ring::error::Unspecified> {
        UnboundKey::new(&AES_256_GCM, self.bytes.as_slice()).map(LessSafeKey::new)
    }
}

/// The id of the key that a value is encrypted with; `None` if the text is no sealed value.
pub(super) fn key_id(sealed: &Sealed) -> Option<&str> {
    let mut parts = sealed.as_str().splitn(3, '.');
    (parts.next() == Some(FORMAT))
        .then(|| parts.next())
        .flatten()
}

/// Decrypts a value with one of the keys.
pub(super) fn unseal(
    keys: &[Key],
    secret: &SecretVersion,
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
    let damaged = || UnsealError::Damaged(secret.clone());
    let id = key_id(sealed).ok_or_else(damaged)?;
    let key = keys.iter().find(|key| key.id == id);
    let key = key.ok_or_else(|| UnsealError::UnknownKey(secret.clone()))?;
    let data = sealed.as_str().rsplit('.').next().unwrap_or_default();
    let data = BASE64_STANDARD.decode(data).map_err(|_| damaged())?;
    key.unseal(secret, data).ok_or_else(damaged)
}

/// The length of a value, from that of its text.
pub(super) fn value_bytes(sealed: &Sealed) -> usize {
    let data = sealed.as_str().rsplit('.').next().unwrap_or_default();
    let padding = data.bytes().rev().take_while(|byte| *byte == b'=').count();
    let bytes = (data.len() / 4 * 3).saturating_sub(padding);
    bytes.saturating_sub(NONCE_LEN + AES_256_GCM.tag_len())
}

/// Whether a value is encrypted with this key.
pub(super) fn is_sealed_with(key: &Key, sealed: &Sealed) -> bool {
    key_id(sealed) == Some(&key.id)
}

fn context(secret: &SecretVersion) -> Vec<u8> {
    format!("tucano secret\0{}\0{}", secret.name, secret.version).into_bytes()
}

#[cfg(test)]
mod tests;
