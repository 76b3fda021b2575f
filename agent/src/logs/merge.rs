//! Merges the bytes of both streams into lines, in the order that the index has. PURE.
//!
//! Bytes without a record come after those that precede them in their stream, and have no time. Without an index that is
//! all of stdout, then all of stderr.

use std::collections::VecDeque;

use tucano_api::{
    logs::{Line, OutputStream},
    units::Timestamp,
};
use tucano_oci_runtime::output_index::{Record, Source};

use super::tail::Chunk;

/// A longer line is split into pieces of this many bytes.
pub(super) const MAX_PIECE_BYTES: usize = 1 << 20;

/// A line of output, or a piece of one, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// When its last byte was read from the process, if the index knows.
    pub time: Option<Timestamp>,
    /// Its stream.
    pub stream: OutputStream,
    /// Whether it ends with a newline.
    pub is_complete: bool,
    /// The bytes.
    pub text: Vec<u8>,
}

impl OutputLine {
    /// The line as it is sent.
    pub fn as_line(&self) -> Line<'_> {
        Line {
            time: self.time,
            stream: self.stream,
            is_complete: self.is_complete,
            text: &self.text,
        }
    }

    /// Length with its newline.
    pub(super) fn len(&self) -> u64 {
        self.text.len() as u64 + u64::from(self.is_complete)
    }
}

/// Bytes and records that are not merged yet.
#[derive(Debug, Default)]
pub(super) struct Merger {
    streams: Vec<Input>,
    records: VecDeque<Record>,
    lines: Vec<OutputLine>,
}

/// One stream's part.
#[derive(Debug)]
struct Input {
    source: Source,
    chunks: VecDeque<Chunk>,
    /// The beginning of a line, and when it was read.
    partial: Vec<u8>,
    partial_time: Option<Timestamp>,
}

impl Merger {
    /// Merges these streams.
    pub(super) fn new(sources: &[Source]) -> Self {
        let input = |source: &Source| Input {
            source: *source,
            chunks: VecDeque::new(),
            partial: Vec::new(),
            partial_time: None,
        };
        Self {
            streams: sources.iter().map(input).collect(),
            ..Self::default()
        }
    }

    /// Adds the next bytes of a stream.
    pub(super) fn push_chunk(&mut self, source: Source, chunk: Chunk) {
        if let Some(input) = self.input(source) {
            input.chunks.push_back(chunk);
        }
    }

    /// Adds the next records. Those of other streams are dropped.
    pub(super) fn push_records(&mut self, records: impl IntoIterator<Item = Record>) {
        let streams = &self.streams;
        let records = records
            .into_iter()
            .filter(|record| streams.iter().any(|input| input.source == record.source));
        self.records.extend(records);
    }

    /// Whether bytes wait for their record.
    pub(super) fn has_bytes(&self) -> bool {
        self.streams.iter().any(|input| !input.chunks.is_empty())
    }

    /// The last record of a stream.
    pub(super) fn last_record(&self, source: Source) -> Option<Record> {
        let mut records = self.records.iter().rev();
        records.find(|record| record.source == source).copied()
    }

    /// Merges what is older than the index: the bytes before those of each stream's first record.
    pub(super) fn merge_older(&mut self) {
        for input in &mut self.streams {
            let mut records = self.records.iter();
            let first = records.find(|record| {
                let is_of =
                    |chunk: &Chunk| chunk.inode == record.inode && record.offset < chunk.end();
                record.source == input.source && input.chunks.iter().any(is_of)
            });
            match first {
                Some(first) => input.take_before(first, &mut self.lines),
                None => input.take_all(&mut self.lines),
            }
        }
    }

    /// Merges the bytes of the records, up to one of a stream in `behind` whose bytes are still to come. A record of bytes
    /// that are missing otherwise is dropped.
    pub(super) fn merge(&mut self, behind: &[Source]) {
        while let Some(record) = self.records.pop_front() {
            let mut streams = self.streams.iter_mut();
            let Some(input) = streams.find(|input| input.source == record.source) else {
                continue;
            };
            input.take_before(&record, &mut self.lines);
            let rest = input.take(&record, &mut self.lines);
            if let Some(rest) = rest.filter(|_| behind.contains(&record.source)) {
                self.records.push_front(rest);
                break;
            }
        }
    }

    /// Merges the bytes that have no record.
    pub(super) fn merge_rest(&mut self) {
        for input in &mut self.streams {
            input.take_all(&mut self.lines);
        }
    }

    /// The lines that were merged.
    pub(super) fn lines(&mut self) -> Vec<OutputLine> {
        std::mem::take(&mut self.lines)
    }

    /// Ends the lines that have no newline.
    pub(super) fn finish(&mut self) {
        self.merge(&[]);
        self.merge_rest();
        for input in &mut self.streams {
            if !input.partial.is_empty() {
                let text = std::mem::take(&mut input.partial);
                let time = input.partial_time;
                self.lines.push(input.line(time, text, false));
            }
        }
    }

    fn input(&mut self, source: Source) -> Option<&mut Input> {
        self.streams.iter_mut().find(|input| input.source == source)
    }
}

impl Input {
    /// Takes the bytes that come before a record's in the stream, if its own are there.
    fn take_before(&mut self, record: &Record, lines: &mut Vec<OutputLine>) {
        let is_of = |chunk: &Chunk| chunk.inode == record.inode && record.offset < chunk.end();
        let Some(index) = self.chunks.iter().position(is_of) else {
            return;
        };
        for chunk in self.chunks.drain(..index).collect::<Vec<_>>() {
            self.add(None, &chunk.bytes, lines);
        }
        self.take_front(record.offset, None, lines);
    }

    /// Takes a record's bytes. Returns the part of the record whose bytes are missing.
    fn take(&mut self, record: &Record, lines: &mut Vec<OutputLine>) -> Option<Record> {
        let end = record.offset + record.length;
        let time = Some(Timestamp(record.time_ms));
        let mut offset = record.offset;
        while let Some(chunk) = self.chunks.front()
            && chunk.inode == record.inode
            && chunk.offset < end
        {
            offset = chunk.end().min(end);
            self.take_front(end, time, lines);
        }
        (offset < end).then_some(Record {
            offset,
            length: end - offset,
            ..*record
        })
    }

    /// Takes the first chunk's bytes up to an offset in its file.
    fn take_front(&mut self, end: u64, time: Option<Timestamp>, lines: &mut Vec<OutputLine>) {
        let Some(mut chunk) = self.chunks.pop_front() else {
            return;
        };
        let count = end
            .saturating_sub(chunk.offset)
            .min(chunk.bytes.len() as u64);
        let rest = chunk.bytes.split_off(count as usize);
        self.add(time, &chunk.bytes, lines);
        if !rest.is_empty() {
            self.chunks.push_front(Chunk {
                inode: chunk.inode,
                offset: chunk.offset + count,
                bytes: rest,
            });
        }
    }

    fn take_all(&mut self, lines: &mut Vec<OutputLine>) {
        for chunk in std::mem::take(&mut self.chunks) {
            self.add(None, &chunk.bytes, lines);
        }
    }

    /// Adds bytes to the line that is open, and ends lines at their newlines.
    fn add(&mut self, time: Option<Timestamp>, bytes: &[u8], lines: &mut Vec<OutputLine>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            self.extend(time, text, lines);
            if text.len() < part.len() {
                let text = std::mem::take(&mut self.partial);
                lines.push(self.line(time, text, true));
            }
        }
    }

    fn extend(&mut self, time: Option<Timestamp>, mut text: &[u8], lines: &mut Vec<OutputLine>) {
        while self.partial.len() + text.len() > MAX_PIECE_BYTES {
            let (piece, rest) = text.split_at(MAX_PIECE_BYTES - self.partial.len());
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(piece);
            lines.push(self.line(time, whole, false));
            text = rest;
        }
        if !text.is_empty() {
            self.partial.extend_from_slice(text);
            self.partial_time = time;
        }
    }

    fn line(&self, time: Option<Timestamp>, text: Vec<u8>, is_complete: bool) -> OutputLine {
        OutputLine {
            time,
            stream: stream(self.source),
            is_complete,
            text,
        }
    }
}

/// The stream by its name in the API.
pub(super) fn stream(source: Source) -> OutputStream {
    match source {
        Source::Stdout => OutputStream::Stdout,
        Source::Stderr => OutputStream::Stderr,
    }
}

#[cfg(test)]
mod tests;
