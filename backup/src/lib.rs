//! Backups of volumes in restic repositories: the protocol of the program `tucano_backup`, and, with the feature `engine`,
//! what it does.
//!
//! Storing is a program of its own, which the agent starts for each operation: its dependencies are heavy, it handles the
//! passwords of repositories, and it can be killed at any moment.
//!
//! | | carries |
//! |---|---|
//! | standard input | the [`Request`], one line of JSON; then [`Frame`]s |
//! | standard output | the content of a stream that is restored, else nothing |
//! | standard error | an [`Event`] on each line, as JSON; the last one is the result or the error |
//!
//! The end of standard input aborts the operation, so that nothing goes on once its caller is dead. A snapshot is saved in two
//! phases: everything is stored, [`Event::Ready`] says so, and the snapshot appears when the caller answers
//! [`Frame::Commit`]. A dump that failed, or a volume that did not stay frozen, never becomes a snapshot.

mod event;
mod frame;
mod request;

#[cfg(feature = "engine")]
pub mod engine;

pub use event::{
    BackedUp, Checked, Class, Event, Failure, Forgotten, Initialised, Kind, Listed, Outcome,
    Progress, Pruned, Restored, Snapshot, Unlocked,
};
pub use frame::{FRAME_BYTES, Frame, FrameError};
pub use request::{
    Backup, Check, Forget, Init, Limits, List, Operation, Parent, Repository, Request, Restore, S3,
    Secret, Source, Target, Unlock,
};

/// Maximum length of the request's line.
pub const REQUEST_BYTES: u64 = 1 << 20;
