//! The schema: one table per kind of record, each row a key and a JSON record, readable with any SQLite tool.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, Transaction, params};
use serde::{Serialize, de::DeserializeOwned};
use tucano_api::state::Alert;
use tucano_planner::{Identity, Record, Snapshot};

use super::{
    AlertId, StoreError, StoredAlert, identity,
    mark::{self, Mark, MarkFile},
};

/// Version of the schema below, kept in `user_version`.
const SCHEMA: i64 = 1;
/// Identifies the file for file(1): "Tuca".
const APPLICATION_ID: i64 = 0x5475_6361;
/// The counters are one record.
const COUNTERS: &str = "cluster";

/// Which writes are synced.
const SYNC: &str = "synchronous";

const CREATE: &str = "
    CREATE TABLE services  (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE processes (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE nodes     (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE counters  (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Tables that came later. Versions without them ignore them.
const CREATE_LATER: &str = "
    CREATE TABLE IF NOT EXISTS alerts  (id INTEGER PRIMARY KEY AUTOINCREMENT, alert TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS volumes (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS backups (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS jobs    (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS runs    (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS secrets (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    identity: Identity,
    mark: MarkFile,
    path: PathBuf,
}

impl Database {
    /// Opens or creates the file; it grows to `limit_bytes` at most.
    ///
    /// # Errors
    /// The file is not usable.
    pub(super) fn open(path: &Path, limit_bytes: u64) -> Result<Self, StoreError> {
        let opening = |source: rusqlite::Error| match full(source) {
            Ok(full) => full,
            Err(source) => StoreError::Open {
                path: path.display().to_string(),
                source,
            },
        };
        let mark = MarkFile(path.with_file_name(super::MARK));
        let expected = mark.read().filter(|_| path.exists());
        let file = mark::file_of(path);
        refuse_orphaned_log(path)?;
        let mut connection = Connection::open(path).map_err(opening)?;
        configure(&connection, limit_bytes).map_err(opening)?;
        check(&connection, path)?;
        let found: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(opening)?;
        match found {
            0 if expected.is_some() => return Err(lost_changes(path)),
            0 => create(&mut connection).map_err(opening)?,
            SCHEMA => {}
            found => {
                return Err(StoreError::Newer {
                    path: path.display().to_string(),
                    found,
                    known: SCHEMA,
                });
            }
        }
        connection.execute_batch(CREATE_LATER).map_err(opening)?;
        let identity = identity::open(&connection).map_err(opening)?;
        let changes = mark::changes(&connection).map_err(opening)?;
        let same =
            |it: &Mark| it.cluster == identity.cluster && it.file.is_some() && it.file == file;
        if expected.filter(same).is_some_and(|it| it.changes > changes) {
            return Err(lost_changes(path));
        }
        let database = Self {
            connection,
            identity,
            mark,
            path: path.to_owned(),
        };
        database.write_mark(changes);
        Ok(database)
    }

    /// Everything in it.
    ///
    /// # Errors
    /// The record that cannot be read.
    pub(super) fn load(&mut self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot {
            services: self.table("services")?,
            processes: self.table("processes")?,
            nodes: self.table("nodes")?,
            secrets: self.table("secrets")?,
            volumes: self.table("volumes")?,
            backups: self.table("backups")?,
            jobs: self.table("jobs")?,
            runs: self.table("runs")?,
            counters: self.table("counters")?.pop().unwrap_or_default(),
            identity: self.identity.clone(),
        })
    }

    /// Undelivered alerts, oldest first. An alert of an unknown kind, stored by a newer version, is skipped and kept.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn alerts(&mut self) -> Result<Vec<StoredAlert>, StoreError> {
        let mut statement = self
            .connection
            .prepare("SELECT id, alert FROM alerts ORDER BY id")
            .map_err(refused)?;
        let rows = statement
            .query_map([], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })
            .map_err(refused)?;
        let mut alerts = Vec::new();
        for row in rows {
            let (id, text) = row.map_err(refused)?;
            match serde_json::from_str(&text) {
                Ok(alert) => alerts.push(StoredAlert {
                    id: Some(AlertId(id)),
                    alert,
                }),
                Err(error) => {
                    tracing::error!(%error, text, "an undelivered alert cannot be read")
                }
            }
        }
        Ok(alerts)
    }

    /// Writes all records and alerts or none, and returns when they are on disk.
    ///
    /// # Errors
    /// Why nothing was written.
    pub(super) fn persist(
        &mut self,
        records: &[Record],
        alerts: &[Alert],
    ) -> Result<Vec<AlertId>, StoreError> {
        let transaction = self.connection.transaction().map_err(refused)?;
        for record in records {
            write(&transaction, record)?;
        }
        let ids = alerts.iter().map(|alert| keep(&transaction, alert));
        let ids = ids.collect::<Result<_, _>>()?;
        let changes = mark::count(&transaction).map_err(refused)?;
        transaction.commit().map_err(refused)?;
        self.write_mark(changes);
        Ok(ids)
    }

    /// Writes the write-ahead log back into the database. Where that fails, it is tried again later.
    pub(super) fn checkpoint(&mut self) {
        let checkpoint = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = checkpoint {
            tracing::warn!(%error, "the database's write-ahead log cannot be written back");
        }
        if let Ok(changes) = mark::changes(&self.connection) {
            self.write_mark(changes);
        }
    }

    /// After a change: a mark that is missing or too low only weakens the check at the next start.
    fn write_mark(&self, changes: u64) {
        let mark = Mark {
            cluster: self.identity.cluster.clone(),
            changes,
            file: mark::file_of(&self.path),
        };
        if let Err(error) = self.mark.write(&mark) {
            tracing::warn!(%error, path = %self.mark.0.display(), "cannot be written");
        }
    }

    /// Removes a delivered alert, without a sync: after a power failure it may be delivered again.
    ///
    /// # Errors
    /// The transaction failed.
    pub(super) fn forget_alert(&mut self, AlertId(id): AlertId) -> Result<(), StoreError> {
        let forget = || {
            self.connection.pragma_update(None, SYNC, "NORMAL")?;
            self.connection
                .execute("DELETE FROM alerts WHERE id = ?1", params![id])
        };
        let forgotten = forget();
        self.connection
            .pragma_update(None, SYNC, "FULL")
            .map_err(refused)?;
        forgotten.map(drop).map_err(refused)
    }

    fn table<T: DeserializeOwned>(&self, table: &'static str) -> Result<Vec<T>, StoreError> {
        let mut statement = self
            .connection
            .prepare(&format!("SELECT key, record FROM {table} ORDER BY key"))
            .map_err(refused)?;
        let rows = statement
            .query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })
            .map_err(refused)?;
        rows.map(|row| {
            let (key, record) = row.map_err(refused)?;
            serde_json::from_str(&record).map_err(|source| StoreError::Record {
                table,
                key,
                source,
            })
        })
        .collect()
    }
}

/// Checks the structure of a database.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match found {
        Ok(text) if text == "ok" => Ok(()),
        Ok(text) => Err(StoreError::damaged(
            path,
            format!(
                "the database is damaged ({text}): restore a backup with `tucano_ctld restore`"
            ),
        )),
        Err(source) => Err(StoreError::Open {
            path: path.display().to_string(),
            source,
        }),
    }
}

/// A write-ahead log without its database belongs to one that was moved away.
fn refuse_orphaned_log(path: &Path) -> Result<(), StoreError> {
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let orphaned = !path.exists() && log.metadata().is_ok_and(|log| log.len() > 0);
    if orphaned {
        let why = "the write-ahead log is there without its database: move the database back, or the log away";
        return Err(StoreError::damaged(&log, why));
    }
    Ok(())
}

fn lost_changes(path: &Path) -> StoreError {
    StoreError::damaged(
        path,
        "the database has lost changes: its write-ahead log (-wal) was removed or damaged, or the file was truncated. \
         Restore a backup with `tucano_ctld restore`. To use the database as it is, remove state.mark: agents that know \
         more are then on hold until `tucano adopt`",
    )
}

fn configure(connection: &Connection, limit_bytes: u64) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // In WAL mode only FULL syncs at each commit: acknowledged changes survive power loss.
    connection.pragma_update(None, SYNC, "FULL")?;
    let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let limit_bytes = i64::try_from(limit_bytes).unwrap_or(i64::MAX);
    let pages = limit_bytes / page_bytes.max(1);
    connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(CREATE)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()
}

fn write(transaction: &Transaction<'_>, record: &Record) -> Result<(), StoreError> {
    match record {
        Record::Service(service) => put(transaction, "services", service.name.as_str(), service),
        Record::ServiceGone(name) => delete(transaction, "services", name.as_str()),
        Record::Process(process) => put(transaction, "processes", process.id.as_str(), process),
        Record::ProcessGone(id) => delete(transaction, "processes", id.as_str()),
        Record::Node(node) => put(transaction, "nodes", node.name.as_str(), node),
        Record::NodeGone(name) => delete(transaction, "nodes", name.as_str()),
        Record::Secret(secret) => put(transaction, "secrets", secret.name.as_str(), secret),
        Record::SecretGone(name) => delete(transaction, "secrets", name.as_str()),
        // Two volumes of one name may exist while one of them is being removed.
        Record::Volume(volume) => put(transaction, "volumes", &volume.volume.to_string(), volume),
        Record::Backups(backups) => put(transaction, "backups", backups.id.as_str(), backups),
        Record::VolumeGone(volume) => delete(transaction, "volumes", &volume.to_string()),
        Record::Job(job) => put(transaction, "jobs", job.service.as_str(), job),
        Record::JobGone(name) => delete(transaction, "jobs", name.as_str()),
        Record::Run(run) => put(transaction, "runs", &run.id(), run),
        Record::RunGone { service, number } => {
            delete(transaction, "runs", &format!("{service}/{number}"))
        }
        Record::Counters(counters) => put(transaction, "counters", COUNTERS, counters),
    }
}

fn keep(transaction: &Transaction<'_>, alert: &Alert) -> Result<AlertId, StoreError> {
    let json = serde_json::to_string(alert)?;
    let inserted = transaction.execute("INSERT INTO alerts (alert) VALUES (?1)", params![json]);
    inserted.map_err(refused)?;
    Ok(AlertId(transaction.last_insert_rowid()))
}

fn put(
    transaction: &Transaction<'_>,
    table: &str,
    key: &str,
    record: &impl Serialize,
) -> Result<(), StoreError> {
    let json = serde_json::to_string(record)?;
    let sql = format!("INSERT OR REPLACE INTO {table} (key, record) VALUES (?1, ?2)");
    let mut statement = transaction.prepare_cached(&sql).map_err(refused)?;
    statement.execute(params![key, json]).map_err(refused)?;
    Ok(())
}

fn delete(transaction: &Transaction<'_>, table: &str, key: &str) -> Result<(), StoreError> {
    let sql = format!("DELETE FROM {table} WHERE key = ?1");
    let mut statement = transaction.prepare_cached(&sql).map_err(refused)?;
    statement.execute(params![key]).map_err(refused)?;
    Ok(())
}

fn refused(error: rusqlite::Error) -> StoreError {
    full(error).unwrap_or_else(StoreError::Write)
}

/// A full disk is `FULL` when a page is written, and an error of its own when the WAL index grows.
fn full(error: rusqlite::Error) -> Result<StoreError, rusqlite::Error> {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Ok(StoreError::Full(error)),
        Some(ErrorCode::SystemIoFailure) if is_index_growth(&error) => Ok(StoreError::Full(error)),
        _ => Err(error),
    }
}

fn is_index_growth(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

#[cfg(test)]
mod tests;
