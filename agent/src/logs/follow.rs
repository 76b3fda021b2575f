//! Follows a file as it grows, through rotations.

use std::{
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{
    files,
    tail::{Chunk, Position},
};

/// Largest result of one read.
const CHUNK_BYTES: usize = 64 << 10;

/// Reads a file as it grows.
#[derive(Debug)]
pub(super) struct FileFollower {
    home: PathBuf,
    /// Where the output is after the process's removal.
    retained: PathBuf,
    name: &'static str,
    /// What is read is a multiple of this many bytes.
    unit_bytes: usize,
    position: Option<Position>,
}

impl FileFollower {
    /// A follower of what comes after a position; none is the beginning of the oldest file.
    pub(super) fn new(
        home: &Path,
        retained: &Path,
        name: &'static str,
        unit_bytes: usize,
        position: Option<Position>,
    ) -> Self {
        Self {
            home: home.to_owned(),
            retained: retained.to_owned(),
            name,
            unit_bytes,
            position,
        }
    }

    /// The next bytes, up to a limit; none if there are none yet.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn read(&mut self) -> io::Result<Option<Chunk>> {
        loop {
            if let Some(chunk) = self.read_on()? {
                return Ok(Some(chunk));
            }
            if !self.switch_file()? {
                return Ok(None);
            }
        }
    }

    /// Whether the process was removed from the node.
    pub(super) fn is_over(&self) -> bool {
        !self.home.exists() || self.home == self.retained
    }

    fn read_on(&mut self) -> io::Result<Option<Chunk>> {
        let Some(position) = &mut self.position else {
            return Ok(None);
        };
        let mut bytes = vec![0; CHUNK_BYTES];
        let count = position.file.read_at(&mut bytes, position.offset)?;
        bytes.truncate(count - count % self.unit_bytes);
        let chunk = Chunk {
            inode: position.inode,
            offset: position.offset,
            bytes,
        };
        position.offset = chunk.end();
        Ok((!chunk.bytes.is_empty()).then_some(chunk))
    }

    /// Switches to the next newer file, if there is one.
    fn switch_file(&mut self) -> io::Result<bool> {
        let mut newer = None;
        // Output is moved before the home directory is removed, so that the last lines are read from there.
        let mut current = files(&self.home, self.name);
        if current.is_empty() {
            current = files(&self.retained, self.name);
        }
        for path in current {
            let file = match super::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            let inode = file.metadata()?.ino();
            if self
                .position
                .as_ref()
                .is_some_and(|position| position.inode == inode)
            {
                break;
            }
            newer = Some(Position {
                file,
                inode,
                offset: 0,
            });
        }
        let found = newer.is_some();
        if let Some(next) = newer {
            // Output may have been written between the last read and the rotation: the current file is read to its end
            // first.
            let offset = self.position.as_ref().map(|position| position.offset);
            if self.read_on()?.is_some() {
                if let (Some(position), Some(offset)) = (&mut self.position, offset) {
                    position.offset = offset;
                }
                return Ok(true);
            }
            self.position = Some(next);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
