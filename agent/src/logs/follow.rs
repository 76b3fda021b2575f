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
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
    };

    use super::*;
    use crate::logs::{Bounds, tail::tail};

    /// The last lines, and a follower of what comes after them.
    fn begin(home: &Path, retained: &Path, lines: usize) -> (Vec<u8>, FileFollower) {
        let bounds = Bounds { lines, bytes: 1000 };
        let tail = tail(home, "stdout.log", bounds).unwrap();
        let text = tail.chunks.into_iter().flat_map(|chunk| chunk.bytes);
        let follower = FileFollower::new(home, retained, "stdout.log", 1, tail.end);
        (text.collect(), follower)
    }

    fn append(home: &Path, text: &str) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(home.join("stdout.log"))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rotate(home: &Path) {
        for n in (1..5).rev() {
            let (from, to) = (
                home.join(format!("stdout.log.{n}")),
                home.join(format!("stdout.log.{}", n + 1)),
            );
            if from.exists() {
                fs::rename(from, to).unwrap();
            }
        }
        fs::rename(home.join("stdout.log"), home.join("stdout.log.1")).unwrap();
    }

    fn all(follower: &mut FileFollower) -> String {
        let mut text = Vec::new();
        while let Some(chunk) = follower.read().unwrap() {
            text.extend(chunk.bytes);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn output_after_the_tail_is_returned_once() {
        let home = tempfile::tempdir().unwrap();
        append(home.path(), "a\nb\n");
        let (text, mut follower) = begin(home.path(), Path::new("/none"), 1);
        assert_eq!(text, b"b\n");
        assert_eq!(all(&mut follower), "");
        append(home.path(), "c\n");
        assert_eq!(all(&mut follower), "c\n");
        assert_eq!(all(&mut follower), "");
    }

    #[test]
    fn rotations_lose_no_output() {
        let home = tempfile::tempdir().unwrap();
        append(home.path(), "a\n");
        let (_, mut follower) = begin(home.path(), Path::new("/none"), 100);
        append(home.path(), "b\n");
        rotate(home.path());
        append(home.path(), "c\n");
        rotate(home.path());
        append(home.path(), "d\n");
        assert_eq!(all(&mut follower), "b\nc\nd\n");
        rotate(home.path());
        assert_eq!(all(&mut follower), "");
        append(home.path(), "e\n");
        assert_eq!(all(&mut follower), "e\n");
    }

    #[test]
    fn a_stream_without_files_is_followed_from_its_first_byte() {
        let home = tempfile::tempdir().unwrap();
        let (text, mut follower) = begin(home.path(), Path::new("/none"), 100);
        assert!(text.is_empty());
        append(home.path(), "first\n");
        assert_eq!(all(&mut follower), "first\n");
    }

    #[test]
    fn units_are_read_whole() {
        let home = tempfile::tempdir().unwrap();
        append(home.path(), "abcd");
        let mut follower =
            FileFollower::new(home.path(), Path::new("/none"), "stdout.log", 3, None);
        assert_eq!(all(&mut follower), "abc");
        append(home.path(), "ef");
        assert_eq!(all(&mut follower), "def");
        // What is left of a unit when the file is rotated is never completed.
        append(home.path(), "g");
        rotate(home.path());
        append(home.path(), "hij");
        assert_eq!(all(&mut follower), "hij");
    }

    #[test]
    fn following_ends_with_the_removal_of_the_process() {
        let home = tempfile::tempdir().unwrap();
        let (_, follower) = begin(home.path(), Path::new("/none"), 100);
        assert!(!follower.is_over());
        fs::remove_dir_all(home.path()).unwrap();
        assert!(follower.is_over());
    }

    #[test]
    fn the_last_lines_of_a_removed_process_are_read_where_they_are_kept() {
        for begins_before in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let (home, kept) = (root.path().join("home"), root.path().join("kept"));
            fs::create_dir(&home).unwrap();
            if begins_before {
                append(&home, "first\n");
            }
            let (text, mut follower) = begin(&home, &kept, 100);
            assert_eq!(text.is_empty(), !begins_before);
            append(&home, "last\n");
            fs::create_dir(&kept).unwrap();
            fs::rename(home.join("stdout.log"), kept.join("stdout.log")).unwrap();
            fs::remove_dir_all(&home).unwrap();
            assert!(follower.is_over());
            assert_eq!(all(&mut follower), "last\n");
        }
    }
}
