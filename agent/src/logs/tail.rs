//! The last lines of a stream, across its rotated files.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
    time::SystemTime,
};

use super::files;

/// Limits of past output.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Number of lines.
    pub lines: usize,
    /// Number of bytes; the first line may be cut at its beginning.
    pub bytes: u64,
}

/// How far a file was read.
#[derive(Debug)]
pub(super) struct Position {
    /// The file.
    pub(super) file: File,
    /// Its inode.
    pub(super) inode: u64,
    /// Offset in it.
    pub(super) offset: u64,
}

/// Successive bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The file's inode.
    pub(super) inode: u64,
    /// Offset of the first byte.
    pub(super) offset: u64,
    /// The bytes.
    pub(super) bytes: Vec<u8>,
}

impl Chunk {
    /// Offset behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// The end of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// The last lines, oldest first.
    pub(super) chunks: Vec<Chunk>,
    /// Where the stream ended; none if it has no files.
    pub(super) end: Option<Position>,
    /// When the newest file was written to.
    pub(super) modified: Option<SystemTime>,
}

/// The last lines of a stream; a missing file has none.
///
/// # Errors
/// A file cannot be read.
pub(super) fn tail(home: &Path, name: &str, bounds: Bounds) -> io::Result<Tail> {
    let (mut bytes, mut lines) = (bounds.bytes, bounds.lines);
    let mut tail = Tail::default();
    let mut last_inode = None;
    for path in files(home, name) {
        let mut file = match super::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let metadata = file.metadata()?;
        let (inode, size) = (metadata.ino(), metadata.len());
        // Already read: it was rotated between the listing and the opening.
        if last_inode == Some(inode) {
            continue;
        }
        last_inode = Some(inode);
        if lines > 0 && bytes > 0 {
            let start = size.saturating_sub(bytes);
            let read = read_between(&mut file, start, size)?;
            let part = last_lines(&read, lines, tail.chunks.is_empty());
            lines -= line_count(part).min(lines);
            bytes -= part.len() as u64;
            tail.chunks.push(Chunk {
                inode,
                offset: start + (read.len() - part.len()) as u64,
                bytes: part.to_vec(),
            });
        }
        if tail.end.is_none() {
            tail.modified = metadata.modified().ok();
            tail.end = Some(Position {
                inode,
                offset: size,
                file,
            });
        }
        if lines == 0 || bytes == 0 {
            break;
        }
    }
    tail.chunks.retain(|chunk| !chunk.bytes.is_empty());
    tail.chunks.reverse();
    Ok(tail)
}

fn read_between(file: &mut File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.take(end - start).read_to_end(&mut text)?;
    Ok(text)
}

/// The last `most` lines of `text`. An unfinished line counts only at the end of the stream: elsewhere it continues in the next
/// file.
fn last_lines(text: &[u8], most: usize, at_end: bool) -> &[u8] {
    let complete = text.strip_suffix(b"\n");
    let body = if at_end {
        complete.unwrap_or(text)
    } else {
        text
    };
    let wanted = if at_end || complete.is_none() {
        most
    } else {
        most + 1
    };
    let start = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n')
        .nth(wanted.saturating_sub(1))
        .map_or(0, |(index, _)| index + 1);
    &text[start..]
}

fn line_count(text: &[u8]) -> usize {
    let newlines = text.iter().filter(|byte| **byte == b'\n').count();
    newlines + usize::from(!text.is_empty() && !text.ends_with(b"\n"))
}

#[cfg(test)]
mod tests;
