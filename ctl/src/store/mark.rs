//! The mark: how many changes the database has had, in a file beside it. Where the database's main file is unchanged since
//! and has had fewer, its write-ahead log was removed or damaged.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use tucano_api::ids::ClusterId;

const KEY: &str = "changes";

/// Content of the file. It is written after the change is on disk, so that it is never ahead of a sound database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Which cluster's database it belongs to.
    pub(super) cluster: Option<ClusterId>,
    /// Changes that it has had.
    pub(super) changes: u64,
    /// Length of its main file, and when that was last written, in nanoseconds since 1970. A file that was replaced by a
    /// copy differs.
    pub(super) file: Option<(u64, u64)>,
}

/// What identifies a database's main file.
pub(super) fn file_of(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    let written = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let nanoseconds = u64::try_from(written.as_nanos()).ok()?;
    Some((metadata.len(), nanoseconds))
}

/// The mark's file.
#[derive(Debug)]
pub(super) struct MarkFile(pub(super) PathBuf);

impl MarkFile {
    /// The mark; nothing where there is none or it cannot be read.
    pub(super) fn read(&self) -> Option<Mark> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }

    pub(super) fn write(&self, mark: &Mark) -> io::Result<()> {
        let text = serde_json::to_vec(mark).map_err(io::Error::other)?;
        let temporary = self.0.with_extension("mark.new");
        fs::write(&temporary, text)?;
        fs::rename(&temporary, &self.0)
    }
}

/// Changes that the database has had.
pub(super) fn changes(connection: &Connection) -> rusqlite::Result<u64> {
    let stored: Option<String> = connection
        .query_row("SELECT record FROM identity WHERE key = ?1", [KEY], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(stored.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Counts a change; part of its transaction.
pub(super) fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let next = changes(connection)?.saturating_add(1);
    connection.execute(
        "INSERT OR REPLACE INTO identity (key, record) VALUES (?1, ?2)",
        params![KEY, next.to_string()],
    )?;
    Ok(next)
}
