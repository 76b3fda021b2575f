//! What the program says on standard error.

use serde::{Deserialize, Serialize};

/// One line of standard error. Lines that are none are a panic's, or the memory allocator's: text for the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// How far it is; at most one in each interval of the limits.
    Progress(Progress),
    /// Something that the log should have, at most as many as the limits say.
    Warning(String),
    /// Everything is stored. The snapshot appears after the caller's commit.
    Ready(BackedUp),
    /// The operation is done: the last line.
    Result(Outcome),
    /// The operation failed: the last line.
    Error(Failure),
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Files that were read or written.
    pub files: u64,
    /// Bytes of files, unchanged ones included.
    pub bytes: u64,
}

/// The result of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Of `init`.
    Initialised(Initialised),
    /// Of `backup`.
    BackedUp(BackedUp),
    /// Of `restore`.
    Restored(Restored),
    /// Of `list`.
    Listed(Listed),
    /// Of `forget`.
    Forgotten(Forgotten),
    /// Of `check`.
    Checked(Checked),
    /// Of `unlock`.
    Unlocked(Unlocked),
}

/// Result of `init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initialised {
    /// The repository's id: remember it, and give it as `expected_id` from now on.
    pub id: String,
    /// Whether it was created now; false: it was there, and the password opens it.
    pub created: bool,
}

/// Result of `backup`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// Id of the snapshot; empty in [`Event::Ready`].
    pub snapshot: String,
    /// Files of the snapshot, everything but directories.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files whose content was read, since the parent has not got it.
    pub files_read: u64,
    /// Bytes that the repository grew by.
    pub added: u64,
    /// How long it took.
    pub milliseconds: u64,
    /// Files that vanished or changed while they were read, at most as many as the limits say.
    pub warnings: Vec<String>,
    /// How many there were.
    pub warnings_total: u64,
}

/// Result of `restore`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Files that were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took.
    pub milliseconds: u64,
    /// What was left out, such as devices; at most as many as the limits say.
    pub warnings: Vec<String>,
    /// How many there were.
    pub warnings_total: u64,
}

/// What a snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A directory with everything below it.
    Tree,
    /// The output of a program.
    Stream,
}

/// A snapshot of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// Its time (RFC 3339, UTC).
    pub time: String,
    /// The host that made it.
    pub host: String,
    /// The volume it is of; none for those of other programs.
    pub volume: Option<String>,
    /// Further tags.
    pub tags: Vec<String>,
    /// What it has; unknown for those of other programs.
    pub kind: Option<Kind>,
    /// Whether it was a first pass only, of files in use.
    pub draft: bool,
    /// Files, where recorded.
    pub files: Option<u64>,
    /// Bytes, where recorded.
    pub bytes: Option<u64>,
}

/// Result of `list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The repository's id.
    pub id: String,
    /// The snapshots, newest first.
    pub snapshots: Vec<Snapshot>,
    /// How many there are, of which the newest are listed.
    pub total: u64,
}

/// Result of `forget`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Ids of the snapshots that were removed.
    pub forgotten: Vec<String>,
    /// Snapshots of the volume that are left.
    pub kept: u64,
    /// What pruning did; none where it was not asked for, or put off.
    pub pruned: Option<Pruned>,
    /// Why pruning was put off, such as another operation at work. The next one makes up for it.
    pub put_off: Option<String>,
}

/// What pruning did. Data is marked at first, and deleted by the first pruning after the grace period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Bytes that were deleted.
    pub deleted: u64,
    /// Bytes that are marked for deletion.
    pub marked: u64,
    /// Bytes that are left in use.
    pub used: u64,
}

/// Result of `check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// What is damaged, at most as many as the limits say. Empty: the repository is sound.
    pub errors: Vec<String>,
    /// How many there were.
    pub errors_total: u64,
}

/// Result of `unlock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlocked {
    /// Locks that were removed: of programs that are no more.
    pub removed: u64,
    /// Locks that are in use.
    pub left: u64,
}

/// What an error is about; also the program's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Class {
    /// A fault of the program.
    Internal = 1,
    /// The request is invalid.
    BadRequest = 2,
    /// There is no repository at the location.
    RepositoryAbsent = 3,
    /// No key of the repository has this password.
    WrongPassword = 4,
    /// The storage does not answer, or refuses.
    Unreachable = 5,
    /// The source cannot be read, or is empty.
    Source = 6,
    /// The caller gave up, or is gone.
    Aborted = 7,
    /// The target is not an empty directory, or cannot be written.
    Target = 8,
    /// There is no such snapshot.
    SnapshotAbsent = 9,
    /// The repository has something that it should not, or lacks something.
    Damaged = 10,
    /// Another program has the repository's lock.
    Busy = 11,
    /// Another repository is at the location, or something else: nothing is created or written there.
    Occupied = 12,
}

impl Class {
    /// The program's exit code.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// Why an operation failed. Never has a password or a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What it is about.
    pub class: Class,
    /// What happened, where, and what to do.
    pub message: String,
}
