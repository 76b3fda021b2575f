//! What an unpacked layer looked like when it was finished, so that what the disk does to it later is found. A seal is
//! no protection from somebody who can write here, which is root alone: checksums are enough for it.
//!
//! Beside the layer, in `<hex of diff-id>.seal`: `directory <entries> <sum>`, or `file <bytes> <head> <rest>`. A
//! directory's sum is over its files' names, kinds, modes, owners, times, sizes, link targets and contents, in any order;
//! that of their other attributes is the file system's own affair.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

use flate2::Crc;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

const BUFFER_BYTES: usize = 256 << 10;
/// Of an image's file: its first part is written last.
const HEAD_BYTES: u64 = 4096;

/// What a layer should look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seal {
    Directory(DirectorySeal),
    File(FileSeal),
}

/// Of a directory with everything in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DirectorySeal {
    entries: u64,
    sum: u128,
}

/// Of an image's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSeal {
    pub(crate) bytes: u64,
    /// CRC-32 of the first 4 KiB.
    pub(crate) head_crc: u32,
    /// Of what follows.
    pub(crate) rest_crc: u32,
}

/// CRC-32 of files' contents, by their inodes.
pub(crate) type Contents = HashMap<u64, u32>;

impl Seal {
    /// Reads one; `None` if it is not there, or makes no sense.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        match fields[..] {
            ["directory", entries, sum] => Some(Self::Directory(DirectorySeal {
                entries: entries.parse().ok()?,
                sum: u128::from_str_radix(sum, 16).ok()?,
            })),
            ["file", bytes, head, rest] => Some(Self::File(FileSeal {
                bytes: bytes.parse().ok()?,
                head_crc: u32::from_str_radix(head, 16).ok()?,
                rest_crc: u32::from_str_radix(rest, 16).ok()?,
            })),
            _ => None,
        }
    }

    /// As it is written beside the layer.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Directory(DirectorySeal { entries, sum }) => {
                format!("directory {entries} {sum:032x}\n")
            }
            Self::File(FileSeal {
                bytes,
                head_crc,
                rest_crc,
            }) => format!("file {bytes} {head_crc:08x} {rest_crc:08x}\n"),
        }
    }
}

impl FileSeal {
    /// Reads a whole file.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            bytes,
            head_crc: crc_of((&mut file).take(HEAD_BYTES))?,
            rest_crc: crc_of(file)?,
        })
    }
}

impl DirectorySeal {
    /// Reads everything in a directory.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Self::with_contents(&File::open(path)?, &Contents::new())
    }

    /// Of a directory whose files' contents are known. What is not known is read.
    pub(crate) fn with_contents(directory: &File, contents: &Contents) -> io::Result<Self> {
        let mut seal = Self::default();
        seal.add(b"", &rustix::fs::fstat(directory)?, &[]);
        seal.add_directory(directory.try_clone()?.into(), &mut Vec::new(), contents)?;
        Ok(seal)
    }

    /// As deep as layers are, which is bounded.
    fn add_directory(
        &mut self,
        directory: OwnedFd,
        path: &mut Vec<u8>,
        contents: &Contents,
    ) -> io::Result<()> {
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let length = path.len();
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
            let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let open = |flags| {
                let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(&directory, name, flags, Mode::empty())
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    self.add(path, &stat, &[]);
                    self.add_directory(open(OFlags::DIRECTORY)?, path, contents)?;
                }
                FileType::RegularFile => {
                    let crc = match contents.get(&stat.st_ino) {
                        Some(crc) => *crc,
                        None => crc_of(File::from(open(OFlags::RDONLY)?))?,
                    };
                    self.add(path, &stat, &crc.to_le_bytes());
                }
                FileType::Symlink => {
                    let target = readlinkat(&directory, name, Vec::new())?;
                    self.add(path, &stat, target.to_bytes());
                }
                _ => self.add(path, &stat, &[]),
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn add(&mut self, path: &[u8], stat: &Stat, content: &[u8]) {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
        // Nobody sets the time of a whiteout.
        let mtime = match is_whiteout {
            true => (0, 0),
            false => (stat.st_mtime, stat.st_mtime_nsec),
        };
        let bytes = match kind {
            FileType::RegularFile => stat.st_size,
            _ => 0,
        };
        let mut hash = Sha256::new();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update(stat.st_mode.to_le_bytes());
        hash.update(stat.st_uid.to_le_bytes());
        hash.update(stat.st_gid.to_le_bytes());
        hash.update(stat.st_rdev.to_le_bytes());
        hash.update(bytes.to_le_bytes());
        hash.update(mtime.0.to_le_bytes());
        hash.update(mtime.1.to_le_bytes());
        hash.update(content);
        let hash = hash.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(half));
        self.entries += 1;
    }
}

/// Whether reading failed because of what is on the disk, and not because of the machine's state.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    // ext4 and XFS say UCLEAN of what makes no sense, and BADMSG of a wrong checksum.
    let damage = [
        Errno::IO,
        Errno::UCLEAN,
        Errno::BADMSG,
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::LOOP,
    ];
    errno.is_some_and(|errno| damage.contains(&errno))
}

fn crc_of(mut file: impl Read) -> io::Result<u32> {
    let mut crc = Crc::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(crc.sum()),
            Ok(read) => crc.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

    #[test]
    fn seals_are_read_as_they_are_written() {
        let directory = Seal::Directory(DirectorySeal {
            entries: 7,
            sum: 1 << 100,
        });
        let file = Seal::File(FileSeal {
            bytes: 9,
            head_crc: 1,
            rest_crc: u32::MAX,
        });
        for seal in [directory, file] {
            assert_eq!(Seal::parse(&seal.text()), Some(seal));
        }
        for text in ["", "directory 1", "file 1 2 x", "other 1 2"] {
            assert_eq!(Seal::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn whatever_changes_in_a_directory_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "content").unwrap();
        fs::write(root.join("g"), "").unwrap();
        symlink("f", root.join("d/l")).unwrap();
        let before = DirectorySeal::of(root).unwrap();
        assert_eq!(DirectorySeal::of(root).unwrap(), before);
        let file = File::options().write(true).open(root.join("d/f")).unwrap();
        let times = file.metadata().unwrap().modified().unwrap();
        let changed = |what: &str| assert_ne!(DirectorySeal::of(root).unwrap(), before, "{what}");
        file.write_all_at(b"contenT", 0).unwrap();
        file.set_modified(times).unwrap();
        changed("a byte");
        file.write_all_at(b"content", 0).unwrap();
        changed("a time");
        file.set_modified(times).unwrap();
        assert_eq!(DirectorySeal::of(root).unwrap(), before);
        let mode = file.metadata().unwrap().permissions().mode();
        file.set_permissions(fs::Permissions::from_mode(mode ^ 0o100))
            .unwrap();
        changed("a mode");
        file.set_permissions(fs::Permissions::from_mode(mode))
            .unwrap();
        let swapped = [("g", "h"), ("d/f", "g"), ("h", "d/f")];
        for (from, to) in swapped {
            fs::rename(root.join(from), root.join(to)).unwrap();
        }
        changed("two names");
    }

    #[test]
    fn known_contents_are_not_read() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("f"), "content").unwrap();
        let directory = File::open(place.path()).unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let read = DirectorySeal::of(place.path()).unwrap();
        let unknown = DirectorySeal::with_contents(&directory, &Contents::new()).unwrap();
        assert_eq!(unknown, read);
        let mut crc = Crc::new();
        crc.update(b"content");
        let mut contents = Contents::from([(inode(&place.path().join("f")), crc.sum())]);
        assert_eq!(
            DirectorySeal::with_contents(&directory, &contents).unwrap(),
            read
        );
        contents.values_mut().for_each(|crc| *crc ^= 1);
        assert_ne!(
            DirectorySeal::with_contents(&directory, &contents).unwrap(),
            read
        );
    }
}
