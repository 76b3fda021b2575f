//! The last route table in a file, replaced atomically.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use tucano_api::routes::RouteTable;

/// The cache file.
#[derive(Debug, Clone)]
pub struct Cache {
    path: PathBuf,
}

/// Why the cache could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// The file exceeds the limit of a table.
    #[error("{0} is larger than a route table may be (--table-bytes)")]
    TooLarge(PathBuf),
    /// The file is not a route table.
    #[error("{0} does not contain a route table")]
    Parse(PathBuf, #[source] serde_json::Error),
    /// The new file cannot be written.
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    /// The new file cannot replace the old one.
    #[error("cannot replace {0}")]
    Replace(PathBuf, #[source] io::Error),
}

impl Cache {
    /// Caches the table at `path`; the new content is written to a file beside it.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The cached table; `None` if the file does not exist. Reads `limit` bytes at most.
    pub fn load(&self, limit: usize) -> Result<Option<RouteTable>, CacheError> {
        let failed = |error| CacheError::Read(self.path.clone(), error);
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut text = Vec::new();
        let bytes_max = limit as u64 + 1;
        file.take(bytes_max)
            .read_to_end(&mut text)
            .map_err(failed)?;
        if text.len() > limit {
            return Err(CacheError::TooLarge(self.path.clone()));
        }
        let parsed = serde_json::from_slice(&text);
        parsed
            .map(Some)
            .map_err(|error| CacheError::Parse(self.path.clone(), error))
    }

    /// Replaces the cached table atomically: after a crash the file is the old or the new one.
    pub fn store(&self, table: &RouteTable) -> Result<(), CacheError> {
        let new = self.path.with_extension("new");
        let failed = |error| CacheError::Write(new.clone(), error);
        let text = serde_json::to_vec(table)
            .map_err(|error| CacheError::Parse(self.path.clone(), error))?;
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        // Without this, a power loss may leave an empty file under the final name.
        file.sync_all().map_err(failed)?;
        fs::rename(&new, &self.path).map_err(|error| CacheError::Replace(self.path.clone(), error))
    }
}

#[cfg(test)]
mod tests;
