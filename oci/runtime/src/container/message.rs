//! Messages from the container's process to its starter.

use serde::{Deserialize, Serialize};

use super::user::User;
use crate::channel::Failure;

/// Messages of the container's process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromContainer {
    /// The root file system is complete and not entered yet. The process waits for `proceed`.
    RootReady,
    /// The devices exist; the process continues with the rest.
    DevicesReady,
    /// Set-up is complete. The process waits for `proceed`.
    Ready(User),
    /// The process waits for `start`.
    Waiting,
    /// Number of the seccomp notification descriptor in the process. The process waits for `proceed`.
    Listener(i32),
    /// A step failed and the process exits.
    Failed(Failure),
}
