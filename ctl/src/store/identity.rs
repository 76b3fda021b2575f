//! The cluster's identity, in a table of its own: an earlier version that writes to the database leaves it alone.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tucano_api::ids::{ClusterId, Epoch};
use tucano_planner::Identity;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS identity (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;";
const KEY: &str = "cluster";

/// Whether the database is of a version before identities. Nothing is changed in it.
pub(super) fn is_missing(path: &Path) -> rusqlite::Result<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    Ok(!connection.table_exists(None, "identity")?)
}

/// The identity in the database. A database without one gets a new one.
pub(super) fn open(connection: &Connection) -> rusqlite::Result<Identity> {
    connection.execute_batch(CREATE)?;
    let stored: Option<String> = connection
        .query_row("SELECT record FROM identity WHERE key = ?1", [KEY], |row| {
            row.get(0)
        })
        .optional()?;
    let stored = stored.and_then(|text| serde_json::from_str::<Identity>(&text).ok());
    match stored.filter(|identity| identity.cluster.is_some()) {
        Some(identity) => Ok(identity),
        None => {
            let identity = Identity {
                cluster: new_id(),
                epoch: epoch_after(Epoch(0)),
            };
            write(connection, &identity)?;
            Ok(identity)
        }
    }
}

/// Begins a new epoch, after a restore.
pub(super) fn begin_epoch(connection: &Connection) -> rusqlite::Result<Identity> {
    let mut identity = open(connection)?;
    identity.epoch = epoch_after(identity.epoch);
    write(connection, &identity)?;
    Ok(identity)
}

fn write(connection: &Connection, identity: &Identity) -> rusqlite::Result<()> {
    let text = serde_json::to_string(identity)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection.execute(
        "INSERT OR REPLACE INTO identity (key, record) VALUES (?1, ?2)",
        params![KEY, text],
    )?;
    Ok(())
}

fn new_id() -> Option<ClusterId> {
    uuid::Uuid::new_v4().simple().to_string().parse().ok()
}

/// The time in seconds, or the next one: epochs that were begun one after the other are in order, also where the database
/// of the first is lost.
fn epoch_after(earlier: Epoch) -> Epoch {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs());
    Epoch(seconds).max(earlier.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_created_once_and_each_epoch_is_higher() {
        let connection = Connection::open_in_memory().unwrap();
        let first = open(&connection).unwrap();
        assert!(first.cluster.is_some());
        assert_eq!(open(&connection).unwrap(), first);
        let second = begin_epoch(&connection).unwrap();
        assert_eq!(second.cluster, first.cluster);
        assert!(second.epoch > first.epoch);
        assert_eq!(open(&connection).unwrap(), second);
    }

    #[test]
    fn a_database_of_a_version_before_identities_is_recognised() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.sqlite3");
        assert!(is_missing(&path).is_err() && !path.exists());
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("CREATE TABLE services (key TEXT)")
            .unwrap();
        assert!(is_missing(&path).unwrap());
        open(&connection).unwrap();
        assert!(!is_missing(&path).unwrap());
    }

    #[test]
    fn two_databases_have_two_identities() {
        let open = || {
            open(&Connection::open_in_memory().unwrap())
                .unwrap()
                .cluster
        };
        assert_ne!(open(), open());
    }
}
