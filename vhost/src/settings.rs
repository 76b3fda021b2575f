//! What the library tells its program `tucano_vhost`, and hears from it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The line that says that a namespace stands.
pub const READY: &str = "ready";
/// Begins the line that tells the pid of a host's init, as the creator numbers it.
pub const PID: &str = "pid ";
/// Begins the line that tells why something did not come up.
pub const FAILED: &str = "failed ";

/// What a host's init needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The host's name.
    pub name: String,
    /// Its directory; holds `hostname`, and during start-up a mount point.
    pub directory: PathBuf,
    /// What becomes its `/etc/hosts`.
    pub etc_hosts: PathBuf,
    /// Whether it ends when its standard input does, which its creator holds.
    pub dies_with_creator: bool,
}
