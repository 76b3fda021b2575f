//! JSON files about volumes, which are stored durably.

use std::{io, path::Path};

use serde::{Serialize, de::DeserializeOwned};

use super::error::{Attempt, Error};
use crate::files::{Durability, read_bounded, write_atomically};

/// The content of a file of at most `limit_bytes`; `None` where there is no file.
pub(super) fn read<T: DeserializeOwned>(path: &Path, limit_bytes: u64) -> Result<Option<T>, Error> {
    let text = match read_bounded(path, limit_bytes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.attempt("read", path)?,
    };
    let parsed = serde_json::from_slice(&text).map_err(io::Error::other);
    parsed.map(Some).attempt("parse", path)
}

/// Replaces the content of a file.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(value).map_err(io::Error::other);
    text.and_then(|text| write_atomically(path, &text, Durability::Synced))
        .attempt("write", path)
}
