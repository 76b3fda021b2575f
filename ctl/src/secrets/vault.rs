//! The keys in use, and what is done with them.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tucano_api::secrets::SecretVersion;
use tucano_planner::{Sealed, SealedVersion, SecretRecord};
use zeroize::Zeroizing;

use super::{
    key_file::{KeyFile, KeyFileError},
    sealing::{self, Key, UnsealError},
};

/// Encrypts and decrypts secrets. A key is generated with the first secret, and never while secrets are stored whose key is missing.
#[derive(Debug)]
pub struct Vault {
    file: KeyFile,
    keys: Mutex<Result<Vec<Key>, KeyFileError>>,
}

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
        let file = KeyFile::new(path);
        let keys = Mutex::new(file.read());
        Self { file, keys }
    }

    /// Why stored secrets cannot be read, if so: a message for the user.
    pub fn problem<'a>(&self, stored: impl Iterator<Item = &'a SecretRecord>) -> Option<String> {
        let mut versions = stored.flat_map(versions);
        let error = versions.find_map(|(secret, it)| self.unseal(&secret, &it.sealed).err());
        error.map(|error| error.to_string())
    }

    /// Encrypts a value with the present key. `is_first` says that no secret is stored, so that a missing key is generated.
    ///
    /// # Errors
    /// The keys cannot be used.
    pub fn seal(
        &self,
        secret: &SecretVersion,
        value: &[u8],
        is_first: bool,
    ) -> Result<Sealed, VaultError> {
        let mut keys = self.usable();
        if matches!(&*keys, Ok(keys) if keys.is_empty()) {
            if !is_first {
                return Err(self.missing().into());
            }
            let key = Key::generate()?;
            self.file.write(std::slice::from_ref(&key))?;
            *keys = Ok(vec![key]);
        }
        let keys = keys.as_ref().map_err(Clone::clone)?;
        let key = keys.first().ok_or_else(|| self.missing())?;
        Ok(key.seal(secret, value)?)
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
        let keys = self.usable();
        let keys = keys.as_ref().map_err(Clone::clone)?;
        if keys.is_empty() {
            return Err(self.missing().into());
        }
        Ok(sealing::unseal(keys, secret, sealed)?)
    }

    /// Adds a new key, with which values are encrypted from now on. It is on disk, with the earlier ones, when this returns.
    ///
    /// # Errors
    /// The keys cannot be used; then they are as before.
    pub fn add_key(&self) -> Result<(), VaultError> {
        let mut keys = self.usable();
        let earlier = keys.as_ref().map_err(Clone::clone)?;
        let mut all = vec![Key::generate()?];
        all.extend(earlier.iter().cloned());
        self.file.write(&all)?;
        *keys = Ok(all);
        Ok(())
    }

    /// The same values, encrypted with the present key.
    ///
    /// # Errors
    /// The first value that cannot be decrypted.
    pub fn reseal<'a>(
        &self,
        stored: impl Iterator<Item = &'a SecretRecord>,
    ) -> Result<Vec<SecretRecord>, VaultError> {
        let mut all = Vec::new();
        for record in stored {
            let mut record = record.clone();
            for version in &mut record.versions {
                let secret = SecretVersion {
                    name: record.name.clone(),
                    version: version.version,
                };
                let value = self.unseal(&secret, &version.sealed)?;
                version.sealed = self.seal(&secret, &value, false)?;
            }
            all.push(record);
        }
        Ok(all)
    }

    /// Forgets the earlier keys, unless a stored value needs one.
    ///
    /// # Errors
    /// The keys cannot be used.
    pub fn drop_earlier_keys<'a>(
        &self,
        stored: impl Iterator<Item = &'a SecretRecord>,
    ) -> Result<(), VaultError> {
        let mut keys = self.usable();
        let all = keys.as_ref().map_err(Clone::clone)?;
        let Some(present) = all.first().cloned() else {
            return Ok(());
        };
        let mut sealed = stored.flat_map(versions);
        if sealed.all(|(_, it)| sealing::is_sealed_with(&present, &it.sealed)) {
            self.file.write(std::slice::from_ref(&present))?;
            *keys = Ok(vec![present]);
        }
        Ok(())
    }

    /// The keys. A file that was missing or not usable is read again: it may have been restored.
    fn usable(&self) -> MutexGuard<'_, Result<Vec<Key>, KeyFileError>> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.as_ref().map_or(true, Vec::is_empty) {
            *keys = self.file.read();
        }
        keys
    }

    fn missing(&self) -> KeyFileError {
        KeyFileError::Missing {
            path: self.file.path().display().to_string(),
        }
    }
}

fn versions(record: &SecretRecord) -> impl Iterator<Item = (SecretVersion, &SealedVersion)> {
    record.versions.iter().map(|version| {
        let secret = SecretVersion {
            name: record.name.clone(),
            version: version.version,
        };
        (secret, version)
    })
}

#[cfg(test)]
mod tests;
