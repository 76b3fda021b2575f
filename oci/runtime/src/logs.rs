//! What the container writes to stdout and stderr, kept in files that are rotated: never more than the limits, and never a
//! reason for the container to wait or to die. What cannot be written (a full disk) is dropped.

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

/// How much is read at once: a pipe's usual capacity is 16 of these.
pub(crate) const CHUNK_BYTES: usize = 4096;

/// Which of its outputs a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

/// One stream of the container: the end of its pipe, and its file.
#[derive(Debug)]
pub(crate) struct Stream {
    pipe: OwnedFd,
    log: Log,
    source: Source,
}

impl Stream {
    /// Does not block on the pipe.
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

    /// Takes what is in the pipe now, at most `rounds` chunks, and shows each. False once nobody can write to it any more.
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

/// A file, and its predecessors `.1` (the youngest), `.2`…
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

    /// Writes, across as many files as it takes. What fails is dropped; the next output tries again.
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
        // A file smaller than a chunk would be rotated all the time.
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

/// A file of the log's own: where somebody has put a link in its place, nothing is written through it.
fn own_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .create(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Gives each file the next number, so that the oldest is replaced.
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

    /// A naive log is opened by its name after each rotation, and follows what somebody has put there.
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
    fn what_cannot_be_written_is_dropped_and_later_output_is_not() {
        let (directory, mut log) = log(2);
        let path = directory.path().join("out.log");
        fs::create_dir(&path).unwrap();
        log.append(b"lost");
        fs::remove_dir(&path).unwrap();
        log.append(b"kept");
        assert_eq!(fs::read(&path).unwrap(), b"kept");
    }
}
