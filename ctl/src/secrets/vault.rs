//! The keys, and what is done with them. They are read from their file with each use: a file that is restored counts at once, and
//! nothing that is remembered is ever written over it.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tucano_api::secrets::SecretVersion;
use tucano_planner::{Sealed, SecretRecord};
use zeroize::Zeroizing;

use super::{
    key_file::{KeyFile, KeyFileError},
    sealing::{self, Key, UnsealError},
};

/// Encrypts and decrypts secrets. A key is generated with the first secret, and never while secrets are stored that it cannot read.
#[derive(Debug)]
pub struct Vault {
    file: KeyFile,
    /// One use of the file at a time.
    turn: Mutex<()>,
}

/// The keys of the file, the present one first; at least one.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

/// What went wrong with the keys or with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// A value.
    #[error(transparent)]
    Value(#[from] UnsealError),
}

impl Vault {
    /// Of this key file. A file that cannot be used is told with each use, since the rest of the cluster needs none.
    pub fn open(path: PathBuf) -> Self {
        Self {
            file: KeyFile::new(path),
            turn: Mutex::default(),
        }
    }

    /// The keys.
    ///
    /// # Errors
    /// The file is missing or cannot be used.
    pub fn keys(&self) -> Result<Keys, VaultError> {
        let _turn = self.turn();
        self.read()
    }

    /// The keys; a first one is generated where there is no file.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn keys_or_first(&self) -> Result<Keys, VaultError> {
        let _turn = self.turn();
        let mut keys = self.file.read()?;
        if keys.is_empty() {
            keys.push(Key::generate()?);
            self.file.write(&keys)?;
        }
        Ok(Keys(keys))
    }

    /// Why stored values cannot be read, if so: a message for the user. Keys are compared, and one value of each key is decrypted.
    pub fn problem(&self, stored: &[SecretRecord]) -> Option<String> {
        if stored.is_empty() {
            return None;
        }
        let check = || {
            let keys = self.keys()?;
            keys.check_known(stored.iter())?;
            let mut tried: Vec<&str> = Vec::new();
            for (secret, sealed) in stored.iter().flat_map(values) {
                let id = sealing::key_id(sealed).unwrap_or_default();
                if !tried.contains(&id) {
                    keys.unseal(&secret, sealed)?;
                    tried.push(id);
                }
            }
            Ok::<(), VaultError>(())
        };
        check().err().map(|error| error.to_string())
    }

    /// Adds a new key to those of the file, with which values are encrypted from now on. It is on disk when this returns.
    ///
    /// # Errors
    /// The file is missing or cannot be used; then it is as before.
    pub fn add_key(&self) -> Result<Keys, VaultError> {
        let _turn = self.turn();
        let Keys(earlier) = self.read()?;
        let mut all = vec![Key::generate()?];
        all.extend(earlier);
        self.file.write(&all)?;
        Ok(Keys(all))
    }

    /// Forgets the earlier keys, unless a stored value needs one.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn drop_earlier_keys(&self, stored: &[SecretRecord]) -> Result<(), VaultError> {
        let _turn = self.turn();
        let Keys(keys) = self.read()?;
        let mut sealed = stored.iter().flat_map(values);
        if let [present, _, ..] = keys.as_slice()
            && sealed.all(|(_, sealed)| sealing::is_sealed_with(present, sealed))
        {
            self.file.write(std::slice::from_ref(present))?;
        }
        Ok(())
    }

    fn read(&self) -> Result<Keys, VaultError> {
        let keys = self.file.read()?;
        if keys.is_empty() {
            let path = self.file.path().display().to_string();
            return Err(KeyFileError::Missing { path }.into());
        }
        Ok(Keys(keys))
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    /// Encrypts a value with the present key.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn seal(&self, secret: &SecretVersion, value: &[u8]) -> Result<Sealed, VaultError> {
        match self.0.first() {
            Some(key) => Ok(key.seal(secret, value)?),
            None => Err(UnsealError::UnknownKey(secret.clone()).into()),
        }
    }

    /// Decrypts a value.
    ///
    /// # Errors
    /// Its key is not there, or it is damaged.
    pub fn unseal(
        &self,
        secret: &SecretVersion,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        Ok(sealing::unseal(&self.0, secret, sealed)?)
    }

    /// Whether the key of every stored value is there. No value is decrypted.
    ///
    /// # Errors
    /// The first value whose key is not.
    pub fn check_known<'a>(
        &self,
        stored: impl Iterator<Item = &'a SecretRecord>,
    ) -> Result<(), VaultError> {
        let mut values = stored.flat_map(values);
        match values.find(|(_, sealed)| !self.has_key_of(sealed)) {
            Some((secret, _)) => Err(UnsealError::UnknownKey(secret).into()),
            None => Ok(()),
        }
    }

    /// Whether the key of a value is there.
    pub fn has_key_of(&self, sealed: &Sealed) -> bool {
        let mut keys = self.0.iter();
        keys.any(|key| sealing::is_sealed_with(key, sealed))
    }

    /// A secret with its values encrypted with the present key.
    ///
    /// # Errors
    /// The first value that cannot be decrypted.
    pub fn reseal(&self, record: &SecretRecord) -> Result<SecretRecord, VaultError> {
        let mut resealed = record.clone();
        for (version, (secret, sealed)) in resealed.versions.iter_mut().zip(values(record)) {
            let value = self.unseal(&secret, sealed)?;
            version.sealed = self.seal(&secret, &value)?;
        }
        Ok(resealed)
    }
}

fn values(record: &SecretRecord) -> impl Iterator<Item = (SecretVersion, &Sealed)> {
    let all = record.identified();
    all.map(|(secret, version)| (secret, &version.sealed))
}

#[cfg(test)]
mod tests;
