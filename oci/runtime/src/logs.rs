//! Log files of a container's stdout and stderr, rotated and bounded, and the index of their order. Logging never blocks
//! or kills the container: what cannot be written (a full disk) is dropped.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::io::Errno;

pub(crate) use crate::output_index::Source;
use crate::{
    launch::LogLimits,
    output_index::{self, IndexWriter, Record},
};

/// Number of bytes per read; a pipe holds 16 times as much by default.
pub(crate) const CHUNK_BYTES: usize = 4096;

/// A container's output: the streams that are open, and their index.
#[derive(Debug)]
pub(crate) struct Outputs {
    streams: Vec<Stream>,
    index: IndexWriter,
}

impl Outputs {
    /// The outputs that these pipes carry, logged in a directory. Sets the pipes to non-blocking mode.
    pub(crate) fn new(
        [stdout, stderr]: [OwnedFd; 2],
        directory: &Path,
        limits: LogLimits,
    ) -> io::Result<Self> {
        let stream = |pipe, source, name| Stream::new(pipe, source, directory.join(name), limits);
        Ok(Self {
            streams: vec![
                stream(stdout, Source::Stdout, "stdout.log")?,
                stream(stderr, Source::Stderr, "stderr.log")?,
            ],
            index: IndexWriter::new(directory.join(output_index::NAME), limits),
        })
    }

    /// The pipes to poll.
    pub(crate) fn descriptors(&self) -> impl ExactSizeIterator<Item = BorrowedFd<'_>> {
        self.streams.iter().map(Stream::as_fd)
    }

    /// Takes what is in the pipes, at most `rounds` chunks of each, logs it and passes it to `show`. The streams take
    /// turns, so that the order of their chunks is close to the order in which they were written.
    pub(crate) fn take(&mut self, rounds: usize, show: &mut dyn FnMut(Source, &[u8])) {
        for _ in 0..rounds {
            let mut is_anything_left = false;
            let index = &mut self.index;
            self.streams
                .retain_mut(|stream| match stream.take_chunk(index, show) {
                    Taken::Chunk => {
                        is_anything_left = true;
                        true
                    }
                    Taken::Nothing => true,
                    Taken::End => false,
                });
            if !is_anything_left {
                break;
            }
        }
        self.index.flush();
    }
}

/// What a stream's pipe had.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    Chunk,
    Nothing,
    End,
}

/// The read end of a container's output pipe and its log file.
#[derive(Debug)]
struct Stream {
    pipe: OwnedFd,
    log: Log,
    source: Source,
}

impl Stream {
    fn new(pipe: OwnedFd, source: Source, path: PathBuf, limits: LogLimits) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self {
            pipe,
            log: Log::new(path, limits),
            source,
        })
    }

    fn take_chunk(
        &mut self,
        index: &mut IndexWriter,
        show: &mut dyn FnMut(Source, &[u8]),
    ) -> Taken {
        let mut chunk = [0; CHUNK_BYTES];
        let length = match rustix::io::retry_on_intr(|| rustix::io::read(&self.pipe, &mut chunk)) {
            Ok(0) => return Taken::End,
            Ok(length) => length,
            Err(Errno::AGAIN) => return Taken::Nothing,
            Err(_) => return Taken::End,
        };
        let (source, time_ms) = (self.source, now_ms());
        self.log.append(&chunk[..length], &mut |piece| {
            index.note(Record {
                source,
                time_ms,
                inode: piece.inode,
                offset: piece.offset,
                length: piece.length,
            });
        });
        show(self.source, &chunk[..length]);
        Taken::Chunk
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Now, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Where output was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    inode: u64,
    offset: u64,
    length: u64,
}

/// A log file and its predecessors `.1` (the newest), `.2`…
#[derive(Debug)]
struct Log {
    path: PathBuf,
    limits: LogLimits,
    file: Option<File>,
    inode: u64,
    length: u64,
}

impl Log {
    fn new(path: PathBuf, limits: LogLimits) -> Self {
        Self {
            path,
            limits,
            file: None,
            inode: 0,
            length: 0,
        }
    }

    /// Appends bytes, rotating as needed, and passes what was written to `note`. A failure drops them; the next output
    /// tries again.
    fn append(&mut self, mut bytes: &[u8], note: &mut dyn FnMut(Piece)) {
        while !bytes.is_empty() {
            match self.append_some(bytes) {
                Ok(0) => {}
                Ok(written) => {
                    note(Piece {
                        inode: self.inode,
                        offset: self.length - written as u64,
                        length: written as u64,
                    });
                    bytes = &bytes[written..];
                }
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
                let metadata = file.metadata()?;
                (self.inode, self.length) = (metadata.ino(), metadata.len());
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
pub(crate) fn own_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Shifts each file to the next number; the oldest is replaced.
pub(crate) fn rotate(path: &Path, files: u32) -> io::Result<()> {
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
mod tests;
