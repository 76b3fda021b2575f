//! The index of a process's output: in which order, and when, the pieces of its streams were written.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use tucano_oci_runtime::output_index::{NAME, RECORD_BYTES, Record, Source};

use super::{
    files,
    follow::FileFollower,
    tail::{Chunk, Position},
};

/// Bytes that are read of an index file at a time; a multiple of [`RECORD_BYTES`].
const BLOCK_BYTES: u64 = 8192 * RECORD_BYTES as u64;

/// Maximum number of records for past output; what is older has neither order nor time.
const MAX_RECORDS: usize = 512 << 10;

/// The newest part of an index.
#[derive(Debug, Default)]
pub(super) struct NewestRecords {
    /// Oldest first. Those of files that were replaced are left out.
    pub(super) records: Vec<Record>,
    /// How far the index was read; none if it has no files.
    pub(super) end: Option<Position>,
}

/// Reads the newest records, back to those of the bytes in `wanted`.
///
/// # Errors
/// A file cannot be read.
pub(super) fn newest_records(
    home: &Path,
    wanted: &[(Source, &Chunk)],
) -> io::Result<NewestRecords> {
    let mut reading = Backwards::default();
    let mut end = None;
    let mut last_inode = None;
    for path in files(home, NAME) {
        let file = match super::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let metadata = file.metadata()?;
        if last_inode == Some(metadata.ino()) {
            continue;
        }
        last_inode = Some(metadata.ino());
        let size = metadata.len() - metadata.len() % RECORD_BYTES as u64;
        let is_enough = reading.read_file(&file, size, wanted)?;
        end.get_or_insert(Position {
            inode: metadata.ino(),
            offset: size,
            file,
        });
        if is_enough {
            break;
        }
    }
    reading.records.reverse();
    Ok(NewestRecords {
        records: reading.records,
        end,
    })
}

/// Reads records from the newest to the oldest.
#[derive(Debug, Default)]
struct Backwards {
    records: Vec<Record>,
    /// The lowest offset of which a record was seen, of each file.
    lowest: HashMap<(Source, u64), u64>,
}

impl Backwards {
    /// Returns true once there is a record of each byte that is wanted.
    fn read_file(
        &mut self,
        file: &File,
        size: u64,
        wanted: &[(Source, &Chunk)],
    ) -> io::Result<bool> {
        let mut end = size;
        while end > 0 && self.records.len() < MAX_RECORDS {
            let start = end.saturating_sub(BLOCK_BYTES);
            let mut block = vec![0; (end - start) as usize];
            match file.read_exact_at(&mut block, start) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                read => read?,
            }
            block
                .as_chunks()
                .0
                .iter()
                .rev()
                .for_each(|record| self.push(record));
            if self.covers(wanted) {
                return Ok(true);
            }
            end = start;
        }
        Ok(self.records.len() >= MAX_RECORDS)
    }

    /// Inodes are reused: an older record of bytes that a newer one describes is of a file that was replaced.
    fn push(&mut self, record: &[u8; RECORD_BYTES]) {
        let Some(record) = Record::read(record) else {
            return;
        };
        let lowest = self.lowest.entry((record.source, record.inode));
        let lowest = lowest.or_insert(u64::MAX);
        if record.offset + record.length <= *lowest {
            *lowest = record.offset;
            self.records.push(record);
        }
    }

    fn covers(&self, wanted: &[(Source, &Chunk)]) -> bool {
        wanted.iter().all(|(source, chunk)| {
            let lowest = self.lowest.get(&(*source, chunk.inode));
            lowest.is_some_and(|lowest| *lowest <= chunk.offset)
        })
    }
}

/// Reads the records that are written from a position on.
#[derive(Debug)]
pub(super) struct IndexFollower {
    file: FileFollower,
    has_file: bool,
}

impl IndexFollower {
    pub(super) fn new(home: &Path, retained: &Path, end: Option<Position>) -> Self {
        Self {
            has_file: end.is_some(),
            file: FileFollower::new(home, retained, NAME, RECORD_BYTES, end),
        }
    }

    /// Whether there is an index.
    pub(super) fn has_file(&self) -> bool {
        self.has_file
    }

    /// The next records, up to a limit; empty if there are none yet or the index cannot be read.
    pub(super) fn read(&mut self) -> Vec<Record> {
        let chunk = match self.file.read() {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Vec::new(),
            Err(error) => {
                tracing::debug!(%error, "cannot read the index of a process's output");
                return Vec::new();
            }
        };
        self.has_file = true;
        let records = chunk.bytes.as_chunks().0.iter();
        records.filter_map(Record::read).collect()
    }
}
