//! Durable state: the planner's records and undelivered alerts, in `<data_dir>/state.sqlite3`.
//!
//! One thread owns the database and executes transactions in order: [`Store::persist`] returns when all of its records are
//! on disk, or with an error and none of them.

pub mod backup;
mod identity;
pub mod lock;
mod mark;
mod sqlite;

use std::{path::Path, thread, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tucano_api::state::Alert;
use tucano_planner::{Record, Snapshot};

use self::sqlite::Database;

const FILE: &str = "state.sqlite3";
/// How many changes the database has had.
const MARK: &str = "state.mark";
/// Time without a change after which the write-ahead log is written back.
const IDLE: Duration = Duration::from_secs(5);

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
    /// The disk or the database is full.
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
    /// The file is not what it was, or not what it should be.
    #[error("{path}: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The writing thread has ended.
    #[error("the database is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.display().to_string(),
            why: why.into(),
        }
    }

    /// Whether lack of disk space is the cause.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

/// Key of a stored alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AlertId(i64);

/// An alert to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAlert {
    /// Absent if it could not be stored.
    pub id: Option<AlertId>,
    /// The alert.
    pub alert: Alert,
}

/// A job for the database thread.
type Work = Box<dyn FnOnce(&mut Database) + Send>;

/// Sends jobs to the database thread.
#[derive(Debug)]
pub struct Store {
    work: mpsc::Sender<Work>,
}

/// How old a cluster is when its controller starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It starts for the first time.
    New,
    /// A version without identities of clusters and nodes had it last.
    BeforeIdentities,
    /// A version with identities had it.
    WithIdentities,
}

/// What a database holds when it is opened.
#[derive(Debug)]
pub struct Stored {
    /// The planner's records.
    pub snapshot: Snapshot,
    /// Undelivered alerts, oldest first.
    pub alerts: Vec<StoredAlert>,
}

/// Does the work until the last sender is gone. The write-ahead log is written back when nothing is to be done for a
/// while, and at the end.
fn run(database: &mut Database, queue: &mut mpsc::Receiver<Work>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let Ok(runtime) = runtime else {
        while let Some(work) = queue.blocking_recv() {
            work(database);
        }
        return;
    };
    runtime.block_on(async {
        let mut changed = false;
        loop {
            let next = tokio::time::timeout(IDLE, queue.recv()).await;
            match next {
                Ok(Some(work)) => {
                    work(database);
                    changed = true;
                }
                Ok(None) => return database.checkpoint(),
                Err(_) if changed => {
                    database.checkpoint();
                    changed = false;
                }
                Err(_) => {}
            }
        }
    });
}

impl Store {
    /// What the data directory holds before the database is opened.
    pub fn age(data_dir: &Path) -> Age {
        let path = data_dir.join(FILE);
        match path.exists() {
            false => Age::New,
            // A damaged database counts as one of this version: that opens nothing, and opening it reports the damage.
            true if identity::is_missing(&path).unwrap_or(false) => Age::BeforeIdentities,
            true => Age::WithIdentities,
        }
    }

    /// Opens or creates the database of at most `limit_bytes` in `data_dir`, and reads all of it.
    ///
    /// # Errors
    /// The file is not usable.
    pub fn open(data_dir: &Path, limit_bytes: u64) -> Result<(Self, Stored), StoreError> {
        let mut database = Database::open(&data_dir.join(FILE), limit_bytes)?;
        let stored = Stored {
            snapshot: database.load()?,
            alerts: database.alerts()?,
        };
        let (work, mut queue) = mpsc::channel::<Work>(1);
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(&mut database, &mut queue))
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

    /// Removes a delivered alert.
    ///
    /// # Errors
    /// The transaction failed.
    pub async fn forget_alert(&self, id: AlertId) -> Result<(), StoreError> {
        self.with(move |database| database.forget_alert(id)).await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, result) = oneshot::channel();
        let work = move |database: &mut Database| {
            if done.send(work(database)).is_err() {
                tracing::debug!("the caller of a transaction is gone");
            }
        };
        self.work
            .send(Box::new(work))
            .await
            .map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }
}
