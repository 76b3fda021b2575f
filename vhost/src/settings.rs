//! The messages between the library and its program `tucano_vhost`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Line of a program whose namespaces are set up.
pub const READY: &str = "ready";
/// Prefix of the line with the pid of a host's init, in the creator's pid namespace.
pub const PID: &str = "pid ";
/// Prefix of the line with the reason of a failed start.
pub const FAILED: &str = "failed ";

/// Settings of a host's init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The host's name.
    pub name: String,
    /// The host's directory; has `hostname`, and during start-up a mount point.
    pub directory: PathBuf,
    /// The file that is mounted as `/etc/hosts`.
    pub etc_hosts: PathBuf,
    /// Whether it ends when its creator closes its standard input.
    pub dies_with_creator: bool,
}
