//! What is durable: the planner's records, and alerts until they are told, in `<data_dir>/state.sqlite3`.
//!
//! One thread owns the database and takes transactions one after the other: [`Store::persist`] returns
//! when its records are on disk, all of them, or with an error and none.

pub mod lock;
pub mod sqlite;

use std::{path::Path, thread};

use tokio::sync::{mpsc, oneshot};
use tucano_api::state::Alert;
use tucano_planner::{Record, Snapshot};

use self::sqlite::Database;

const FILE: &str = "state.sqlite3";

/// Why records could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened as a database.
    #[error("cannot open the database {path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The database was written by a newer version of the program.
    #[error(
        "the database {path} has schema {found}, this program knows {known}: start the newer program again, or restore a backup"
    )]
    Newer {
        /// The file.
        path: String,
        /// The schema in the file.
        found: i64,
        /// The newest schema this program knows.
        known: i64,
    },
    /// A record in it cannot be read.
    #[error(
        "the record {key:?} of table {table} cannot be read: {source}; restore a backup of the database"
    )]
    Record {
        /// The table.
        table: &'static str,
        /// The record's key.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// There is no room for more.
    #[error(
        "the disk (or limits.database_bytes) is full: nothing was changed; free some space and try again"
    )]
    Full(#[source] rusqlite::Error),
    /// A transaction failed for another reason.
    #[error("the database refused a change: {0}; nothing was changed")]
    Write(#[source] rusqlite::Error),
    /// A record cannot be written as JSON.
    #[error("a record cannot be encoded: {0}")]
    Encode(#[from] serde_json::Error),
    /// A file of the data directory cannot be used.
    #[error("cannot use {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The writing thread has ended.
    #[error("the database is closed")]
    Closed,
}

impl StoreError {
    /// Whether room on the disk would have helped.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

/// Which of the stored alerts it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AlertId(i64);

/// An alert that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAlert {
    /// Absent where it could not be stored.
    pub id: Option<AlertId>,
    /// The alert.
    pub alert: Alert,
}

/// What is to be done with the database.
type Work = Box<dyn FnOnce(&mut Database) + Send>;

/// The way to the thread that writes.
#[derive(Debug)]
pub struct Store {
    work: mpsc::Sender<Work>,
}

/// What a database holds when it is opened.
#[derive(Debug)]
pub struct Stored {
    /// The planner's.
    pub snapshot: Snapshot,
    /// The alerts that have not been told, oldest first.
    pub alerts: Vec<KeptAlert>,
}

impl Store {
    /// Whether there is a database already.
    pub fn is_there(data_dir: &Path) -> bool {
        data_dir.join(FILE).exists()
    }

    /// Opens or creates the database of at most `limit_bytes` in `data_dir`, and reads all of it.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(data_dir: &Path, limit_bytes: u64) -> Result<(Self, Stored), StoreError> {
        let mut database = Database::open(&data_dir.join(FILE), limit_bytes)?;
        let stored = Stored {
            snapshot: database.load()?,
            alerts: database.alerts()?,
        };
        let (work, mut queue) = mpsc::channel::<Work>(1);
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                while let Some(work) = queue.blocking_recv() {
                    work(&mut database);
                }
            })
            .map_err(|source| StoreError::Io {
                path: data_dir.display().to_string(),
                source,
            })?;
        Ok((Self { work }, stored))
    }

    /// Writes the records and alerts in one transaction and syncs.
    ///
    /// # Errors
    /// Why nothing was written.
    pub async fn persist(
        &self,
        records: Vec<Record>,
        alerts: Vec<Alert>,
    ) -> Result<Vec<AlertId>, StoreError> {
        self.with(move |database| database.persist(&records, &alerts))
            .await
    }

    /// Forgets an alert, which has been told.
    ///
    /// # Errors
    /// Why it was not.
    pub async fn told(&self, id: AlertId) -> Result<(), StoreError> {
        self.with(move |database| database.told(id)).await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, result) = oneshot::channel();
        let work = move |database: &mut Database| {
            if done.send(work(database)).is_err() {
                tracing::debug!("nobody waits for a transaction any more");
            }
        };
        self.work
            .send(Box::new(work))
            .await
            .map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }
}
