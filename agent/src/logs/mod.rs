//! The stored output of processes: its end, and what follows.
//!
//! The runtime writes `<stream>.log` and rotated files `<stream>.log.1`, `.2`… (newest first) in the container's home directory.
//! No other file is read.

mod follow;
mod retained;
mod tail;

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

pub use follow::Follower;
pub use retained::Retained;
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
    /// Both.
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

/// The existing files of one stream, newest first.
fn files(home: &Path, stream: &str) -> Vec<PathBuf> {
    let current = home.join(format!("{stream}.log"));
    let rotated = (1_u32..).map(|n| home.join(format!("{stream}.log.{n}")));
    // During a rotation the current file is missing for a moment.
    let rotated = rotated.take_while(|path| path.exists());
    current
        .exists()
        .then_some(current)
        .into_iter()
        .chain(rotated)
        .collect()
}

/// Opens a file of a stream. Links and anything but regular files are refused.
fn open(path: &Path) -> io::Result<File> {
    use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NOFOLLOW | O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    let message = format!("{} is not a regular file", path.display());
    Err(io::Error::other(message))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_and_fifos_in_place_of_a_log_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let secret = home.path().join("secret");
        fs::write(&secret, "secret\n").unwrap();
        let log = home.path().join("stdout.log");
        symlink(&secret, &log).unwrap();
        let all = Bounds {
            lines: 10,
            bytes: 100,
        };
        tail(home.path(), "stdout", all).unwrap_err();
        fs::remove_file(&log).unwrap();
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
        tail(home.path(), "stdout", all).unwrap_err();
        fs::remove_file(&log).unwrap();
        fs::rename(&secret, &log).unwrap();
        assert_eq!(tail(home.path(), "stdout", all).unwrap(), b"secret\n");
    }
}
