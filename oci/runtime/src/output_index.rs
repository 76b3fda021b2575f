//! The index of a container's output, `output.idx`: in which order, and when, the pieces of `stdout.log` and `stderr.log`
//! were written.
//!
//! It is a sequence of records of [`RECORD_BYTES`], rotated as the logs are. It is written after the output that it
//! describes, may lack records, and may describe output that has been dropped: a reader falls back to the log files
//! alone, which are complete without it. [`Record::read`] refuses damaged records.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf};

use crate::{
    launch::LogLimits,
    logs::{own_file, rotate},
};

/// Name of the newest index file; rotated ones end in `.1`, `.2`…
pub const NAME: &str = "output.idx";

/// Length of a record in bytes.
pub const RECORD_BYTES: usize = 24;

/// Number of index files, including the current one.
const FILES: u32 = 4;

/// The index may take this part of the space that the logs may take.
const PART_OF_LOGS: u64 = 4;

/// Minimum number of records in a file.
const MIN_RECORDS: u64 = 64;

/// First byte of a record; the lowest bit tells the stream.
const MARK: u8 = 0xA6;

/// Bound of offsets (40 bits) and times (48 bits) in a record.
const MAX_OFFSET: u64 = (1 << 40) - 1;
const MAX_TIME_MS: u64 = (1 << 48) - 1;

/// Maximum length of a record's piece of output (24 bits).
const MAX_LENGTH: u64 = (1 << 24) - 1;

/// Output stream of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The stream.
    pub source: Source,
    /// When it was read from the container, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Inode of its log file.
    pub inode: u64,
    /// Offset in the log file.
    pub offset: u64,
    /// Length in bytes; at least 1.
    pub length: u64,
}

impl Record {
    /// Encodes the record. None if a number is too large for it.
    fn write(&self) -> Option<[u8; RECORD_BYTES]> {
        if self.offset > MAX_OFFSET || self.time_ms > MAX_TIME_MS || self.length > MAX_LENGTH {
            return None;
        }
        let mut bytes = [0; RECORD_BYTES];
        bytes[0] = MARK | u8::from(self.source == Source::Stderr);
        bytes[2..8].copy_from_slice(&self.time_ms.to_le_bytes()[..6]);
        bytes[8..16].copy_from_slice(&self.inode.to_le_bytes());
        bytes[16..21].copy_from_slice(&self.offset.to_le_bytes()[..5]);
        bytes[21..24].copy_from_slice(&self.length.to_le_bytes()[..3]);
        bytes[1] = checksum(&bytes);
        Some(bytes)
    }

    /// Decodes a record. None if it is damaged.
    pub fn read(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let source = match bytes[0] ^ MARK {
            0 => Source::Stdout,
            1 => Source::Stderr,
            _ => return None,
        };
        let number = |range: std::ops::Range<usize>| {
            let mut number = [0; 8];
            number[..range.len()].copy_from_slice(&bytes[range]);
            u64::from_le_bytes(number)
        };
        let record = Self {
            source,
            time_ms: number(2..8),
            inode: number(8..16),
            offset: number(16..21),
            length: number(21..24),
        };
        (bytes[1] == checksum(bytes) && record.length > 0).then_some(record)
    }
}

/// Checksum of every byte but itself.
fn checksum(bytes: &[u8; RECORD_BYTES]) -> u8 {
    let rest = bytes.iter().take(1).chain(&bytes[2..]);
    rest.fold(0x5A_u8, |sum, byte| sum.rotate_left(3) ^ byte)
}

/// An index file that is written to.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    file: Option<File>,
    length: u64,
}

impl RecordFile {
    /// The file at this path, which is opened by the first write.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            length: 0,
        }
    }

    /// Appends a record. One whose numbers are too large for it is left out.
    ///
    /// # Errors
    /// The file cannot be opened or written. The next write opens it again.
    pub fn write(&mut self, record: Record) -> io::Result<()> {
        let Some(bytes) = record.write() else {
            return Ok(());
        };
        let written = self.append(&bytes);
        if written.is_err() {
            self.file = None;
        }
        written
    }

    fn append(&mut self, record: &[u8; RECORD_BYTES]) -> io::Result<()> {
        self.open()?;
        if let Some(file) = &self.file {
            file.write_all_at(record, self.length)?;
        }
        self.length += RECORD_BYTES as u64;
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let file = own_file().write(true).open(&self.path)?;
            // A record that was cut off is replaced.
            let length = file.metadata()?.len();
            self.length = length - length % RECORD_BYTES as u64;
            self.file = Some(file);
        }
        Ok(())
    }
}

/// Writes the index. What cannot be written is dropped.
#[derive(Debug)]
pub(crate) struct IndexWriter {
    file: RecordFile,
    max_file_bytes: u64,
    pending: Option<Record>,
}

impl IndexWriter {
    pub(crate) fn new(path: PathBuf, limits: LogLimits) -> Self {
        Self {
            file: RecordFile::new(path),
            max_file_bytes: max_file_bytes(limits),
            pending: None,
        }
    }

    /// Notes a piece of output. It is written with the next piece, unless that continues it, or by [`Self::flush`].
    pub(crate) fn note(&mut self, next: Record) {
        if let Some(pending) = &mut self.pending {
            let is_continued = pending.source == next.source
                && pending.inode == next.inode
                && pending.time_ms == next.time_ms
                && pending.offset + pending.length == next.offset
                && pending.length + next.length <= MAX_LENGTH;
            if is_continued {
                pending.length += next.length;
                return;
            }
            self.flush();
        }
        self.pending = Some(next);
    }

    /// Writes the piece that is pending.
    pub(crate) fn flush(&mut self) {
        if let Some(record) = self.pending.take() {
            drop(self.rotate().and_then(|()| self.file.write(record)));
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.open()?;
        if self.file.length + RECORD_BYTES as u64 > self.max_file_bytes {
            self.file.file = None;
            rotate(&self.file.path, FILES)?;
        }
        Ok(())
    }
}

/// Maximum size of an index file.
fn max_file_bytes(limits: LogLimits) -> u64 {
    let logs = limits
        .file_bytes
        .saturating_mul(u64::from(limits.files.max(1)))
        .saturating_mul(2);
    let records = logs / PART_OF_LOGS / u64::from(FILES) / RECORD_BYTES as u64;
    records.max(MIN_RECORDS) * RECORD_BYTES as u64
}

#[cfg(test)]
mod tests;
