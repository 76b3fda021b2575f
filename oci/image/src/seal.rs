//! Checksums of unpacked layers, which detect damage by the disk. They do not protect from deliberate changes, which
//! only root can make.
//!
//! Stored beside the layer in `<hex of diff-id>.seal`: `directory <entries> <sum>`, or `file <bytes> <head> <rest>`. A
//! directory's sum covers its files' names, types, modes, owners, times, sizes, link targets and contents, in any order,
//! but no extended attributes.

use std::{
    collections::HashMap,
    ffi::CStr,
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use flate2::Crc;
use rustix::{
    fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags, Stat, openat, readlinkat, statat},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

const BUFFER_BYTES: usize = 256 << 10;
/// The first part of an EROFS image, which is written last.
const HEAD_BYTES: u64 = 4096;

/// The checksums of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seal {
    Directory(DirectorySeal),
    File(FileSeal),
}

/// The checksum of a directory tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DirectorySeal {
    entries: u64,
    sum: u128,
}

/// The checksums of an EROFS image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSeal {
    pub(crate) bytes: u64,
    /// CRC-32 of the first 4 KiB.
    pub(crate) head_crc: u32,
    /// CRC-32 of the rest.
    pub(crate) rest_crc: u32,
}

/// Checksums of regular files that were computed while they were written, by inode number; see [`file_sum`].
pub(crate) type KnownSums = HashMap<u64, u64>;

impl Seal {
    /// Reads a seal; `None` if it is missing or malformed.
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

    /// The stored text.
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
    /// Reads a file and computes its seal.
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
    /// Reads a directory tree and computes its seal.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Self::with_known(&File::open(path)?, &KnownSums::new())
    }

    /// The seal of a directory tree; files without a known checksum are read.
    pub(crate) fn with_known(directory: &File, known: &KnownSums) -> io::Result<Self> {
        let mut seal = Self::default();
        seal.add(b"", sum(&rustix::fs::fstat(directory)?, &[]));
        seal.add_directory(directory.try_clone()?.into(), &mut Vec::new(), known)?;
        Ok(seal)
    }

    /// Recursion is limited by the depth of layers.
    fn add_directory(
        &mut self,
        directory: OwnedFd,
        path: &mut Vec<u8>,
        known: &KnownSums,
    ) -> io::Result<()> {
        let mut known = InDirectory::new(known);
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let length = path.len();
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
            if let Some(sum) = known.get(directory.as_fd(), &entry)? {
                self.add(path, sum);
            } else {
                self.add_unknown(directory.as_fd(), name, path, known.all)?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn add_unknown(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        known: &KnownSums,
    ) -> io::Result<()> {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let open = |flags| {
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(directory, name, flags, Mode::empty())
        };
        let sum = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                self.add_directory(open(OFlags::DIRECTORY)?, path, known)?;
                sum(&stat, &[])
            }
            FileType::RegularFile => match known.get(&stat.st_ino) {
                Some(sum) => *sum,
                None => file_sum(&stat, crc_of(File::from(open(OFlags::RDONLY)?))?),
            },
            FileType::Symlink => sum(&stat, readlinkat(directory, name, Vec::new())?.to_bytes()),
            _ => sum(&stat, &[]),
        };
        self.add(path, sum);
        Ok(())
    }

    fn add(&mut self, path: &[u8], sum: u64) {
        let mut hash = Sha256::new();
        hash.update(sum.to_le_bytes());
        hash.update(path);
        let hash = hash.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(half));
        self.entries += 1;
    }
}

/// Looks up known checksums by the inode numbers of directory entries, without a system call for each file.
struct InDirectory<'a> {
    all: &'a KnownSums,
    /// Whether the inode numbers of directory entries match those of the inodes, which is not so on every file system.
    /// The first file decides.
    matches: Option<bool>,
}

impl<'a> InDirectory<'a> {
    fn new(all: &'a KnownSums) -> Self {
        Self { all, matches: None }
    }

    fn get(&mut self, directory: BorrowedFd<'_>, entry: &DirEntry) -> io::Result<Option<u64>> {
        if entry.file_type() != FileType::RegularFile || self.matches == Some(false) {
            return Ok(None);
        }
        let Some(sum) = self.all.get(&entry.ino()) else {
            return Ok(None);
        };
        if self.matches.is_none() {
            let stat = statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            self.matches = Some(stat.st_ino == entry.ino());
        }
        Ok(self.matches.unwrap_or_default().then_some(*sum))
    }
}

/// The checksum of a complete regular file whose content has this CRC-32.
pub(crate) fn file_sum(stat: &Stat, crc: u32) -> u64 {
    sum(stat, &crc.to_le_bytes())
}

/// The checksum of a file without its name.
fn sum(stat: &Stat, content: &[u8]) -> u64 {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let is_whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
    // The time of a whiteout is not set.
    let mtime = match is_whiteout {
        true => (0, 0),
        false => (stat.st_mtime, stat.st_mtime_nsec),
    };
    let bytes = match kind {
        FileType::RegularFile => stat.st_size,
        _ => 0,
    };
    let mut hash = Sha256::new();
    hash.update(stat.st_mode.to_le_bytes());
    hash.update(stat.st_uid.to_le_bytes());
    hash.update(stat.st_gid.to_le_bytes());
    hash.update(stat.st_rdev.to_le_bytes());
    hash.update(bytes.to_le_bytes());
    hash.update(mtime.0.to_le_bytes());
    hash.update(mtime.1.to_le_bytes());
    hash.update(content);
    let hash = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(first)
}

/// Whether reading failed because of damaged data, and not because of the machine's state.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    // ext4 and XFS return UCLEAN for inconsistent metadata and BADMSG for a wrong checksum.
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
mod tests;
