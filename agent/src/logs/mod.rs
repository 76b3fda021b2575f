//! The stored output of processes: its end, and what follows.
//!
//! The runtime writes `<stream>.log` and rotated files `<stream>.log.1`, `.2`… (newest first) in the container's home
//! directory, and beside them `output.idx` ([`tucano_oci_runtime::output_index`]), which has their order and times. No other
//! file is read. Output without an index, of a runtime of an earlier version, is shown one stream after the other.
//!
//! ```text
//! stdout.log  stderr.log ── tail, follow ──> chunks ──┐
//!                                                     ├── merge ──> lines ── output ──> http
//! output.idx ──────────────── index ───────> records ─┘
//! ```

mod follow;
mod index;
mod merge;
mod output;
mod retained;
mod tail;

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

pub use merge::OutputLine;
pub use output::{Output, Part, Polled, past};
pub use retained::Retained;
use serde::Deserialize;
pub use tail::Bounds;
use tucano_oci_runtime::output_index::Source;

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
    /// The streams.
    fn sources(self) -> &'static [Source] {
        match self {
            Self::Stdout => &[Source::Stdout],
            Self::Stderr => &[Source::Stderr],
            Self::Both => &[Source::Stdout, Source::Stderr],
        }
    }
}

/// Name of a stream's newest file.
fn file_name(source: Source) -> &'static str {
    match source {
        Source::Stdout => "stdout.log",
        Source::Stderr => "stderr.log",
    }
}

/// The existing files of this name and their rotated ones, newest first.
fn files(home: &Path, name: &str) -> Vec<PathBuf> {
    let current = home.join(name);
    let rotated = (1_u32..).map(|n| home.join(format!("{name}.{n}")));
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
mod tests;
