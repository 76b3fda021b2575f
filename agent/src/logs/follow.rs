//! Follows a stream as it grows, through rotations.

use std::{
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{
    Bounds, files,
    tail::{Position, tail_and_position},
};

/// Largest result of one poll.
const CHUNK_BYTES: usize = 64 << 10;

/// Reads one stream as it grows.
#[derive(Debug)]
pub struct Follower {
    home: PathBuf,
    /// Where the output is after the process's removal.
    retained: PathBuf,
    stream: &'static str,
    position: Option<Position>,
}

impl Follower {
    /// The last lines, and a follower of what comes after them.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn begin(
        home: &Path,
        retained: &Path,
        stream: &'static str,
        bounds: Bounds,
    ) -> io::Result<(Vec<u8>, Self)> {
        let (text, position) = tail_and_position(home, stream, bounds)?;
        let follower = Self {
            home: home.to_owned(),
            retained: retained.to_owned(),
            stream,
            position,
        };
        Ok((text, follower))
    }

    /// Output since the last poll, up to a limit; empty if there is none.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn poll(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(position) = &mut self.position {
                let text = read_on(position)?;
                if !text.is_empty() {
                    return Ok(text);
                }
            }
            if !self.switch_file()? {
                return Ok(Vec::new());
            }
        }
    }

    /// Whether the process was removed from the node.
    pub fn is_over(&self) -> bool {
        !self.home.exists() || self.home == self.retained
    }

    /// Switches to the next newer file, if there is one.
    fn switch_file(&mut self) -> io::Result<bool> {
        let mut newer = None;
        // Output is moved before the home directory is removed, so that the last lines are read from there.
        let mut current = files(&self.home, self.stream);
        if current.is_empty() {
            current = files(&self.retained, self.stream);
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
            // Output may have been written between the last poll and the rotation: the current file is read to its end first.
            if let Some(last) = self
                .position
                .as_mut()
                .map(read_on)
                .transpose()?
                .filter(|text| !text.is_empty())
            {
                self.rewind(last.len());
                return Ok(true);
            }
            self.position = Some(next);
        }
        Ok(found)
    }

    fn rewind(&mut self, bytes: usize) {
        if let Some(position) = &mut self.position {
            position.offset -= bytes as u64;
        }
    }
}

fn read_on(position: &mut Position) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let count = position.file.read_at(&mut buffer, position.offset)?;
    buffer.truncate(count);
    position.offset += count as u64;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
    };

    use super::*;

    const ALL: Bounds = Bounds {
        lines: 100,
        bytes: 1000,
    };

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

    fn all(follower: &mut Follower) -> String {
        let mut text = Vec::new();
        loop {
            let more = follower.poll().unwrap();
            if more.is_empty() {
                return String::from_utf8(text).unwrap();
            }
            text.extend(more);
        }
    }

    #[test]
    fn output_after_the_tail_is_returned_once() {
        let home = tempfile::tempdir().unwrap();
        append(home.path(), "a\nb\n");
        let one = Bounds { lines: 1, ..ALL };
        let (text, mut follower) =
            Follower::begin(home.path(), Path::new("/none"), "stdout", one).unwrap();
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
        let (_, mut follower) =
            Follower::begin(home.path(), Path::new("/none"), "stdout", ALL).unwrap();
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
        let (text, mut follower) =
            Follower::begin(home.path(), Path::new("/none"), "stdout", ALL).unwrap();
        assert!(text.is_empty());
        append(home.path(), "first\n");
        assert_eq!(all(&mut follower), "first\n");
    }

    #[test]
    fn following_ends_with_the_removal_of_the_process() {
        let home = tempfile::tempdir().unwrap();
        let (_, follower) =
            Follower::begin(home.path(), Path::new("/none"), "stdout", ALL).unwrap();
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
            let (text, mut follower) = Follower::begin(&home, &kept, "stdout", ALL).unwrap();
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
