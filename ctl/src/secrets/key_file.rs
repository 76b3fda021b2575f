//! The file with the keys that secrets are encrypted with: one key in each line, the present one first. While secrets are being
//! encrypted with a new key it has the earlier one as well.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::sealing::{KEY_BYTES, Key};

/// Why the keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("the key file {path} of the secrets cannot be used: {why}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Secrets are stored, and their key is not there. A new one would not help.
    #[error(
        "the key file {path} of the secrets is missing: restore it from its backup. Secrets that are stored cannot be read without it"
    )]
    Missing {
        /// The file.
        path: String,
    },
    /// The system has no randomness.
    #[error("no key can be generated: {0}")]
    Random(String),
}

/// The key file.
#[derive(Debug)]
pub(super) struct KeyFile(PathBuf);

impl KeyFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Its keys, the present one first; none if there is no file.
    pub(super) fn read(&self) -> Result<Vec<Key>, KeyFileError> {
        let text = tucano_tls::files::read(&self.0).map_err(|error| self.unusable(error))?;
        let Some(text) = text.map(Zeroizing::new) else {
            return Ok(Vec::new());
        };
        let mode = fs::metadata(&self.0).map_err(|error| self.unusable(error))?;
        if mode.permissions().mode() & 0o077 != 0 {
            return Err(self.unusable("others may read it: chmod 600"));
        }
        let lines = text.lines().map(str::trim).enumerate();
        let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<Key> = keys
            .map(|(index, line)| {
                let decoded = BASE64_STANDARD.decode(line).ok().map(Zeroizing::new);
                let bytes = decoded.and_then(|it| <[u8; KEY_BYTES]>::try_from(it.as_slice()).ok());
                let key = bytes.map(|bytes| Key::new(Zeroizing::new(bytes)));
                key.ok_or_else(|| self.unusable(format!("line {} is not a key", index + 1)))
            })
            .collect::<Result<_, _>>()?;
        match keys.is_empty() {
            true => Err(self.unusable("there is no key in it: restore it from its backup")),
            false => Ok(keys),
        }
    }

    /// Replaces the file: afterwards it is on disk, whole.
    pub(super) fn write(&self, keys: &[Key]) -> Result<(), KeyFileError> {
        let mut text = Zeroizing::new(String::from(
            "# Keys of this cluster's secrets, the present one first. Keep a copy apart from the backups of the database.\n",
        ));
        for key in keys {
            let encoded = Zeroizing::new(BASE64_STANDARD.encode(key.bytes()));
            writeln!(text, "{}", encoded.as_str()).map_err(|error| self.unusable(error))?;
        }
        tucano_tls::files::write(&self.0, &text, tucano_tls::files::PRIVATE)
            .map_err(|error| self.unusable(error))
    }

    fn unusable(&self, why: impl ToString) -> KeyFileError {
        KeyFileError::Unusable {
            path: self.0.display().to_string(),
            why: why.to_string(),
        }
    }
}
