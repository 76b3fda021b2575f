//! Log files of a container's stdout and stderr, rotated and bounded. Logging never blocks or kills the container:
//! what cannot be written (a full disk) is dropped.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::launch::LogLimits;

/// Number of bytes per read; a pipe holds 16 times as much by default.
pub(crate) const CHUNK_BYTES: usize = 4096;

/// Output stream of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

/// The read end of a container's output pipe and its log file.
#[derive(Debug)]
pub(crate) struct Stream {
    pipe: OwnedFd,
    log: Log,
    source: Source,
}

impl Stream {
    /// Sets the pipe to non-blocking mode.
    pub(crate) fn new(
        pipe: OwnedFd,
        source: Source,
        path: PathBuf,
        limits: LogLimits,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self {
            pipe,
            log: Log::new(path, limits),
            source,
        })
    }

    /// Reads at most `rounds` chunks, logs them and passes them to `show`. Returns false once the pipe is closed.
    pub(crate) fn take(&mut self, rounds: usize, show: &mut dyn FnMut(Source, &[u8])) -> bool {
        let mut chunk = [0; CHUNK_BYTES];
        for _ in 0..rounds {
            match rustix::io::read(&self.pipe, &mut chunk) {
                Ok(0) => return false,
                Ok(length) => {
                    self.log.append(&chunk[..length]);
                    show(self.source, &chunk[..length]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// A log file and its predecessors `.1` (the newest), `.2`…
#[derive(Debug)]
struct Log {
    path: PathBuf,
    limits: LogLimits,
    file: Option<File>,
    length: u64,
}

impl Log {
    fn new(path: PathBuf, limits: LogLimits) -> Self {
        Self {
            path,
            limits,
            file: None,
            length: 0,
        }
    }

    /// Appends bytes, rotating as needed. A failure drops them; the next output tries again.
    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.append_some(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(_) => {
                    self.file = None;
                    return;
                }
            }
        }
    }

    fn append_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Smaller files would be rotated all the time.
        let limit = self.limits.file_bytes.max(CHUNK_BYTES as u64);
        if self.file.is_some() && self.length >= limit {
            self.file = None;
            rotate(&self.path, self.limits.files)?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = own_file().append(true).open(&self.path)?;
                self.length = file.metadata()?.len();
                self.file.insert(file)
            }
        };
        let room = usize::try_from(limit.saturating_sub(self.length)).unwrap_or(usize::MAX);
        if room == 0 {
            return Ok(0);
        }
        let written = file.write(&bytes[..bytes.len().min(room)])?;
        self.length += written as u64;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(written)
    }
}

/// Opens a log file without following a symbolic link in its place.
fn own_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Shifts each file to the next number; the oldest is replaced.
fn rotate(path: &Path, files: u32) -> io::Result<()> {
    if files <= 1 {
        return own_file().write(true).truncate(true).open(path).map(drop);
    }
    for number in (1..files).rev() {
        let from = if number == 1 {
            path.to_owned()
        } else {
            numbered(path, number - 1)
        };
        match fs::rename(from, numbered(path, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(files: u32) -> (tempfile::TempDir, Log) {
        let directory = tempfile::tempdir().unwrap();
        let limits = LogLimits {
            file_bytes: 5000,
            files,
        };
        let log = Log::new(directory.path().join("out.log"), limits);
        (directory, log)
    }

    fn lengths(directory: &Path) -> Vec<(String, u64)> {
        let mut all: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, entry.metadata().unwrap().len())
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn output_is_kept_whole_while_it_fits() {
        let (directory, mut log) = log(3);
        let text: Vec<u8> = (0..12_000u32).map(|index| (index % 251) as u8).collect();
        text.chunks(777).for_each(|chunk| log.append(chunk));
        let names = ["out.log.2", "out.log.1", "out.log"];
        let kept: Vec<u8> = names
            .iter()
            .flat_map(|name| fs::read(directory.path().join(name)).unwrap())
            .collect();
        assert_eq!(kept, text);
    }

    #[test]
    fn the_oldest_output_is_dropped_and_the_limits_hold() {
        for files in [0, 1, 2, 3] {
            let (directory, mut log) = log(files);
            (0..50).for_each(|_| log.append(&[b'x'; 1000]));
            let kept = lengths(directory.path());
            assert_eq!(kept.len(), files.max(1) as usize, "{kept:?}");
            assert!(kept.iter().all(|(_, length)| *length <= 5000), "{kept:?}");
        }
    }

    #[test]
    fn a_log_that_exists_is_continued() {
        let (directory, mut log) = log(2);
        fs::write(directory.path().join("out.log"), [b'a'; 4999]).unwrap();
        log.append(b"bb");
        assert_eq!(
            lengths(directory.path()),
            [("out.log".to_owned(), 1), ("out.log.1".to_owned(), 5000)]
        );
    }

    /// A log is reopened by name after each rotation, and must not follow a link that was put there.
    #[test]
    fn a_link_in_place_of_a_log_is_not_followed() {
        for files in [1, 3] {
            let (directory, mut log) = log(files);
            let other = directory.path().join("other");
            fs::write(&other, "kept").unwrap();
            let path = directory.path().join("out.log");
            std::os::unix::fs::symlink(&other, &path).unwrap();
            (0..50).for_each(|_| log.append(&[b'x'; 1000]));
            assert_eq!(fs::read(&other).unwrap(), b"kept");
            fs::remove_file(&path).unwrap();
            log.append(&[b'x'; 4999]);
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(&other, &path).unwrap();
            (0..50).for_each(|_| log.append(&[b'x'; 1000]));
            assert_eq!(fs::read(&other).unwrap(), b"kept");
        }
    }

    #[test]
    fn a_failed_write_drops_only_its_output() {
        let (directory, mut log) = log(2);
        let path = directory.path().join("out.log");
        fs::create_dir(&path).unwrap();
        log.append(b"lost");
        fs::remove_dir(&path).unwrap();
        log.append(b"kept");
        assert_eq!(fs::read(&path).unwrap(), b"kept");
    }
}
