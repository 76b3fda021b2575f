//! The kept output of processes: the end of it, and what is written from now on.
//!
//! The runtime keeps `<stream>.log` and its rotated predecessors `<stream>.log.1`, `.2`… (newest first) in the
//! container's home directory. Nothing else is read.

mod follow;
mod tail;

use std::path::{Path, PathBuf};

pub use follow::Follower;
use serde::Deserialize;
pub use tail::{Bounds, tail};

/// Which of a process's two streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// One after the other; followed, as they come.
    #[default]
    Both,
}

impl Selection {
    /// Names of the files without their endings.
    pub fn streams(self) -> &'static [&'static str] {
        match self {
            Self::Stdout => &["stdout"],
            Self::Stderr => &["stderr"],
            Self::Both => &["stdout", "stderr"],
        }
    }
}

/// The files of one stream that exist, newest first.
fn files(home: &Path, stream: &str) -> Vec<PathBuf> {
    let current = home.join(format!("{stream}.log"));
    let rotated = (1_u32..).map(|n| home.join(format!("{stream}.log.{n}")));
    // While the runtime rotates, the current file may be missing for a moment.
    let rotated = rotated.take_while(|path| path.exists());
    current
        .exists()
        .then_some(current)
        .into_iter()
        .chain(rotated)
        .collect()
}
