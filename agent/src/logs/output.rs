//! A process's output: the last lines of both streams, and what comes after them.

use std::{
    io,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use tucano_api::units::Timestamp;
use tucano_oci_runtime::output_index::{Record, Source};

use super::{
    Bounds, Selection, file_name,
    follow::FileFollower,
    index::{IndexFollower, NewestRecords, newest_records},
    merge::{Merger, OutputLine, stream},
    tail::{Position, Tail, tail},
};

/// Maximum number of bytes that one poll reads of a stream.
const POLL_BYTES: usize = 4 << 20;

/// The runtime writes a record right after the output that it describes: this often, and after this time, the index is
/// read again for that of the last output.
const INDEX_READS: usize = 3;
const INDEX_PAUSE: Duration = Duration::from_millis(2);

/// Which part of past output to show.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The streams.
    pub selection: Selection,
    /// The last lines, of both streams together.
    pub bounds: Bounds,
    /// The time of the oldest line. Output without a time is shown, unless it is certainly older.
    pub since: Option<Timestamp>,
}

/// The last lines of a process's output.
///
/// # Errors
/// A file cannot be read.
pub fn past(home: &Path, part: Part) -> io::Result<Vec<OutputLine>> {
    let mut beginning = Beginning::read(home, home, part)?;
    beginning.output.merger.finish();
    Ok(beginning.lines(part))
}

/// Follows a process's output.
#[derive(Debug)]
pub struct Output {
    merger: Merger,
    streams: Vec<(Source, FileFollower)>,
    index: IndexFollower,
    since: Option<Timestamp>,
    /// Whether bytes without a record were left by the last poll.
    is_waiting: bool,
}

/// Result of a poll.
#[derive(Debug)]
pub struct Polled {
    /// The lines that were completed.
    pub lines: Vec<OutputLine>,
    /// Whether there was nothing to read.
    pub is_idle: bool,
}

impl Output {
    /// The last lines, and what follows them. `retained` is where the output is after the process's removal.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn follow(home: &Path, retained: &Path, part: Part) -> io::Result<(Vec<OutputLine>, Self)> {
        let mut beginning = Beginning::read(home, retained, part)?;
        let lines = beginning.lines(part);
        Ok((lines, beginning.output))
    }

    /// Lines that were completed since the last poll, up to a limit.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn poll(&mut self) -> io::Result<Polled> {
        // Before the output: the runtime writes a record after the output that it describes.
        let records = self.index.read();
        let has_records = !records.is_empty();
        self.merger.push_records(records);
        let (behind, has_bytes) = self.read_streams()?;
        self.merger.merge(&behind);
        if !self.merger.has_bytes() || !behind.is_empty() {
            self.is_waiting = false;
        } else if !self.index.has_file() || (self.is_waiting && !has_records) {
            self.merger.merge_rest();
            self.is_waiting = false;
        } else {
            self.is_waiting = true;
        }
        Ok(Polled {
            lines: self.lines(),
            is_idle: !has_records && !has_bytes && !self.is_waiting,
        })
    }

    /// Whether the process was removed from the node.
    pub fn is_over(&self) -> bool {
        self.streams.iter().all(|(_, file)| file.is_over())
    }

    /// The rest, once the process was removed and a poll found nothing.
    pub fn finish(&mut self) -> Vec<OutputLine> {
        self.merger.finish();
        self.lines()
    }

    /// Reads at least one chunk of each stream, and the bytes of its records. Returns the streams that have more, and
    /// whether anything was read.
    fn read_streams(&mut self) -> io::Result<(Vec<Source>, bool)> {
        let (mut behind, mut has_bytes) = (Vec::new(), false);
        for (source, file) in &mut self.streams {
            let last = self.merger.last_record(*source);
            let mut read = 0;
            while let Some(chunk) = file.read()? {
                has_bytes = true;
                read += chunk.bytes.len();
                let is_enough = last.is_none_or(|last| {
                    chunk.inode == last.inode && chunk.end() >= last.offset + last.length
                });
                self.merger.push_chunk(*source, chunk);
                if is_enough {
                    break;
                }
                if read >= POLL_BYTES {
                    behind.push(*source);
                    break;
                }
            }
        }
        Ok((behind, has_bytes))
    }

    fn lines(&mut self) -> Vec<OutputLine> {
        let mut lines = self.merger.lines();
        if let Some(since) = self.since {
            lines.retain(|line| line.time.is_none_or(|time| time >= since));
        }
        lines
    }
}

/// The last lines, before they are cut to what was asked for.
struct Beginning {
    output: Output,
    /// When each stream was written to.
    modified: Vec<Option<SystemTime>>,
}

impl Beginning {
    fn read(home: &Path, retained: &Path, part: Part) -> io::Result<Self> {
        let sources = part.selection.sources();
        let mut tails = Vec::new();
        for source in sources {
            tails.push(tail(home, file_name(*source), part.bounds)?);
        }
        let (records, index) = read_index(home, retained, sources, &tails);
        let mut merger = Merger::new(sources);
        let (past, future) = split(records, sources, &tails);
        merger.push_records(past);
        let mut streams = Vec::new();
        let mut modified = Vec::new();
        for (source, tail) in sources.iter().zip(tails) {
            for chunk in tail.chunks {
                merger.push_chunk(*source, chunk);
            }
            let file = FileFollower::new(home, retained, file_name(*source), 1, tail.end);
            streams.push((*source, file));
            modified.push(tail.modified);
        }
        if !index.has_file() {
            merger.merge_rest();
        }
        merger.merge_older();
        merger.merge(&[]);
        merger.push_records(future);
        let output = Output {
            merger,
            streams,
            index,
            since: part.since,
            is_waiting: false,
        };
        Ok(Self { output, modified })
    }

    /// The last of the lines that are merged.
    fn lines(&mut self, part: Part) -> Vec<OutputLine> {
        let mut lines = self.output.merger.lines();
        keep_last(&mut lines, part.bounds);
        if let Some(since) = part.since {
            let modified = self.modified.iter().map(|time| time.and_then(timestamp));
            let sources = part.selection.sources().iter().copied();
            keep_since(&mut lines, since, sources.zip(modified).collect());
        }
        lines
    }
}

/// Reads the records of the tails' bytes.
fn read_index(
    home: &Path,
    retained: &Path,
    sources: &[Source],
    tails: &[Tail],
) -> (Vec<Record>, IndexFollower) {
    let wanted: Vec<_> = sources
        .iter()
        .zip(tails)
        .filter_map(|(source, tail)| Some((*source, tail.chunks.first()?)))
        .collect();
    // Without the index the output is shown all the same.
    let newest = newest_records(home, &wanted).unwrap_or_else(|error| {
        tracing::debug!(home = %home.display(), %error, "cannot read the index of a process's output");
        NewestRecords::default()
    });
    let mut records = newest.records;
    let mut index = IndexFollower::new(home, retained, newest.end);
    for _ in 0..INDEX_READS {
        if !index.has_file() || has_last(&records, sources, tails) {
            break;
        }
        thread::park_timeout(INDEX_PAUSE);
        records.extend(index.read());
    }
    (records, index)
}

/// Whether the last byte of each tail has a record.
fn has_last(records: &[Record], sources: &[Source], tails: &[Tail]) -> bool {
    sources.iter().zip(tails).all(|(source, tail)| {
        let Some(last) = tail.chunks.last() else {
            return true;
        };
        records.iter().rev().any(|record| {
            record.source == *source
                && record.inode == last.inode
                && record.offset + record.length >= last.end()
        })
    })
}

/// Records of bytes up to the tails' ends, and those of later ones.
fn split(records: Vec<Record>, sources: &[Source], tails: &[Tail]) -> (Vec<Record>, Vec<Record>) {
    let firsts: Vec<_> = sources
        .iter()
        .zip(tails)
        .map(|(source, tail)| first_later(&records, *source, tail.end.as_ref()))
        .collect();
    let (mut past, mut future) = (Vec::new(), Vec::new());
    for (index, record) in records.into_iter().enumerate() {
        let stream = sources.iter().position(|source| *source == record.source);
        let Some(stream) = stream else {
            continue;
        };
        if index >= firsts[stream] {
            future.push(record);
            continue;
        }
        past.push(record);
        // The tail may end within a record.
        if let Some(end) = &tails[stream].end
            && record.inode == end.inode
            && (record.offset..record.offset + record.length).contains(&end.offset)
        {
            future.push(Record {
                offset: end.offset,
                length: record.offset + record.length - end.offset,
                ..record
            });
        }
    }
    (past, future)
}

/// Index of a stream's first record that begins at its end or after it.
fn first_later(records: &[Record], source: Source, end: Option<&Position>) -> usize {
    let Some(end) = end else {
        return 0;
    };
    let is_of_file = |record: &Record| record.source == source && record.inode == end.inode;
    let earlier = records
        .iter()
        .rposition(|record| is_of_file(record) && record.offset < end.offset);
    match earlier {
        Some(index) => index + 1,
        None => records.iter().position(is_of_file).unwrap_or(records.len()),
    }
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok().map(Timestamp)
}

/// Keeps the last lines within the bounds. The first one may be cut at its beginning.
fn keep_last(lines: &mut Vec<OutputLine>, bounds: Bounds) {
    let first = lines.len().saturating_sub(bounds.lines);
    lines.drain(..first);
    let total: u64 = lines.iter().map(OutputLine::len).sum();
    let mut excess = total.saturating_sub(bounds.bytes);
    let mut dropped = 0;
    while let Some(line) = lines
        .get(dropped)
        .filter(|line| excess >= line.len().max(1))
    {
        excess -= line.len();
        dropped += 1;
    }
    lines.drain(..dropped);
    if let Some(first) = lines.first_mut() {
        let excess = usize::try_from(excess).unwrap_or(usize::MAX);
        first.text.drain(..excess.min(first.text.len()));
    }
}

/// Keeps the lines that are not older than `since`. A line without a time is as old as the next one of its stream that has
/// one, at most, or as the last change of its file (`newest`).
fn keep_since(
    lines: &mut Vec<OutputLine>,
    since: Timestamp,
    mut newest: Vec<(Source, Option<Timestamp>)>,
) {
    let mut is_kept: Vec<bool> = lines
        .iter()
        .rev()
        .map(|line| {
            let mut streams = newest.iter_mut();
            let newest = streams.find(|(source, _)| stream(*source) == line.stream);
            match (line.time, newest) {
                (Some(time), Some((_, newest))) => *newest = Some(time),
                (None, Some((_, Some(newest)))) => return *newest >= since,
                _ => {}
            }
            line.time.is_none_or(|time| time >= since)
        })
        .collect();
    lines.retain(|_| is_kept.pop().unwrap_or(true));
}

#[cfg(test)]
mod tests;
