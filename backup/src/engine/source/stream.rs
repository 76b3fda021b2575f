//! A stream: one file, whose content the caller sends.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
};

use jiff::Timestamp;
use rustic_core::{
    ReadSource, ReadSourceEntry, RusticResult,
    repofile::{Metadata, Node, NodeType},
};

use super::{Problems, lock};
use crate::engine::control::{Caller, Reporter};

/// The caller's frames of data as a file.
#[derive(Debug)]
pub(in crate::engine) struct StreamSource {
    name: String,
    data: Mutex<Option<Receiver<Vec<u8>>>>,
    caller: Arc<Caller>,
    problems: Problems,
    reporter: Reporter,
    bytes: Arc<AtomicU64>,
}

impl StreamSource {
    pub(in crate::engine) fn new(
        name: String,
        data: Receiver<Vec<u8>>,
        caller: Arc<Caller>,
        problems: Problems,
        reporter: Reporter,
    ) -> Self {
        Self {
            name,
            data: Mutex::new(Some(data)),
            caller,
            problems,
            reporter,
            bytes: Arc::default(),
        }
    }

    /// How many bytes came.
    pub(in crate::engine) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }
}

/// What a stream's file looks like: only its owner reads it.
const MODE: u32 = 0o600;

impl ReadSource for StreamSource {
    type Open = Reader;
    type Iter = std::vec::IntoIter<RusticResult<ReadSourceEntry<Reader>>>;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Self::Iter {
        let now = Timestamp::now();
        let metadata = Metadata {
            mode: Some(MODE),
            mtime: Some(now),
            atime: Some(now),
            ctime: Some(now),
            uid: Some(0),
            gid: Some(0),
            links: 1,
            ..Metadata::default()
        };
        let open = lock(&self.data).take().map(|data| Reader {
            data,
            piece: Vec::new(),
            at: 0,
            caller: Arc::clone(&self.caller),
            problems: self.problems.clone(),
            reporter: self.reporter.clone(),
            bytes: Arc::clone(&self.bytes),
        });
        self.problems.announce();
        let entry = ReadSourceEntry {
            path: PathBuf::from("/").join(&self.name),
            node: Node::new_node(self.name.as_ref(), NodeType::File, metadata),
            open,
        };
        vec![Ok(entry)].into_iter()
    }
}

/// Reads the stream. Its end is an end only if the caller says that the stream is complete.
pub(in crate::engine) struct Reader {
    data: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    caller: Arc<Caller>,
    problems: Problems,
    reporter: Reporter,
    bytes: Arc<AtomicU64>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let Ok(piece) = self.data.recv() else {
                if self.caller.has_committed() {
                    return Ok(0);
                }
                // The reason is with the caller.
                if let Err(failure) = self.caller.still_there() {
                    self.problems.fail(failure);
                }
                return Err(io::Error::other("the stream is not complete"));
            };
            self.piece = piece;
            self.at = 0;
        }
        let rest = &self.piece[self.at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        self.bytes.fetch_add(length as u64, Ordering::AcqRel);
        self.reporter.advance(0, length as u64);
        Ok(length)
    }
}
