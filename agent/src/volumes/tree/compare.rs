//! The comparison of a copy with its manifest and with the digests that the other worker sends. The file system was mounted anew
//! before: everything is read from the disk.

use std::{
    collections::HashMap,
    ffi::CStr,
    fs::File,
    io::BufRead,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};

use super::{
    Fault, attributes,
    entry::{Entry, Kind, read_line},
    position::{Position, Tree},
    target::opened_for_metadata,
    walk::{DigestLine, digest},
};

/// Compares everything. Returns the first difference, in words; the contents of files that differ are removed, so that they are
/// copied again.
///
/// # Errors
/// Something cannot be read, here or there.
pub fn compare(
    root: &impl AsFd,
    entries: &[Entry],
    digests: &mut impl BufRead,
    sign: &mut impl FnMut() -> std::io::Result<()>,
) -> Result<Option<String>, Fault> {
    let mut comparison = Comparison {
        inodes: inodes_of_linked(entries),
        children: Tree::new(entries).children(),
        tree: Tree::new(entries),
        first: None,
    };
    let mut position = Position::at_root(root.as_fd())?;
    let mut line = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        comparison.metadata(&mut position, index)?;
        if matches!(entry.kind, Kind::File { .. }) {
            let wanted = next_digest(digests, &mut line, index)?;
            comparison.content(&mut position, index, &wanted, sign)?;
        }
    }
    match next(digests, &mut line)? {
        DigestLine::End => Ok(comparison.first),
        _ => Err(Fault::Malformed(
            "there are more digests than files".to_owned(),
        )),
    }
}

fn next_digest(from: &mut impl BufRead, line: &mut Vec<u8>, index: usize) -> Result<String, Fault> {
    match next(from, line)? {
        DigestLine::File { entry, sha256 } if entry == index as u64 => Ok(sha256),
        _ => Err(Fault::Malformed(format!(
            "the digest of file {index} is missing"
        ))),
    }
}

fn next(from: &mut impl BufRead, line: &mut Vec<u8>) -> Result<DigestLine, Fault> {
    loop {
        match read_line(from, line)? {
            DigestLine::Reading => {}
            DigestLine::Error(message) => {
                let message: String = message.chars().take(1000).collect();
                return Err(Fault::Refused(message));
            }
            line => return Ok(line),
        }
    }
}

/// The entries that have other names, whose inodes are to be the same.
fn inodes_of_linked(entries: &[Entry]) -> HashMap<u64, u64> {
    let firsts = entries.iter().filter_map(|entry| match entry.kind {
        Kind::Link(first) => Some((first, 0)),
        _ => None,
    });
    firsts.collect()
}

struct Comparison<'a> {
    tree: Tree<'a>,
    children: Vec<u32>,
    inodes: HashMap<u64, u64>,
    first: Option<String>,
}

impl Comparison<'_> {
    fn metadata(&mut self, position: &mut Position, index: usize) -> Result<(), Fault> {
        let name = self.tree.name(index)?;
        let directory = position.directory_of(&self.tree, index)?;
        let found = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW);
        let found = match found {
            Err(rustix::io::Errno::NOENT) => {
                self.differs(index, "is missing");
                return Ok(());
            }
            found => found.map_err(|errno| self.tree.failed("examine", index, errno))?,
        };
        if let Some(what) = self.difference(directory, &name, index, &found)? {
            self.differs(index, what);
        }
        Ok(())
    }

    fn difference(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        index: usize,
        found: &Stat,
    ) -> Result<Option<&'static str>, Fault> {
        let entry = &self.tree.entries[index];
        if let Kind::Link(first) = entry.kind {
            let same = self.inodes.get(&first) == Some(&found.st_ino);
            return Ok((!same).then_some("is not the same file as its other name"));
        }
        if let Some(inode) = self.inodes.get_mut(&(index as u64)) {
            *inode = found.st_ino;
        }
        let kind = FileType::from_raw_mode(found.st_mode);
        let expected = match &entry.kind {
            Kind::Directory => FileType::Directory,
            Kind::Symlink(_) => FileType::Symlink,
            Kind::Fifo => FileType::Fifo,
            Kind::Whiteout => FileType::CharacterDevice,
            Kind::File { .. } | Kind::Link(_) => FileType::RegularFile,
        };
        if kind != expected {
            return Ok(Some("is something else"));
        }
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid) {
            return Ok(Some("has another owner"));
        }
        if kind != FileType::Symlink && found.st_mode & 0o7777 != entry.mode {
            return Ok(Some("has another mode"));
        }
        let modified = (
            found.st_mtime,
            u32::try_from(found.st_mtime_nsec).unwrap_or(0),
        );
        if modified != entry.modified {
            return Ok(Some("has another time"));
        }
        let failed = |error: std::io::Error| self.tree.failed("read", index, error);
        match &entry.kind {
            Kind::File { size, .. } if *size != found.st_size.cast_unsigned() => {
                return Ok(Some("has another size"));
            }
            Kind::Symlink(target) => {
                let present = readlinkat(directory, name, Vec::new());
                let present = present.map_err(|errno| failed(errno.into()))?;
                if present.as_bytes() != target.0 {
                    return Ok(Some("leads elsewhere"));
                }
            }
            _ => {}
        }
        let opened = opened_for_metadata(directory, name, &entry.kind);
        let Some(file) = opened.map_err(|errno| failed(errno.into()))? else {
            return Ok(None);
        };
        if attributes::of(&file).map_err(failed)? != entry.attributes {
            return Ok(Some("has other extended attributes"));
        }
        let expected = self.children[index] as usize;
        let is_larger = entry.kind == Kind::Directory
            && count(&file).map_err(|errno| failed(errno.into()))? != expected;
        Ok(is_larger.then_some("has other entries"))
    }

    fn content(
        &mut self,
        position: &mut Position,
        index: usize,
        wanted: &str,
        sign: &mut impl FnMut() -> std::io::Result<()>,
    ) -> Result<(), Fault> {
        let name = self.tree.name(index)?;
        let directory = position.directory_of(&self.tree, index)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(directory, &name, flags, Mode::empty()) {
            // It is noted as missing.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            file => file.map_err(|errno| self.tree.failed("open", index, errno))?,
        };
        let file = File::from(file);
        let present = digest(&file, sign);
        let present = present.map_err(|error| self.tree.failed("read", index, error))?;
        if present != wanted {
            let emptied = file.set_len(0);
            emptied.map_err(|error| self.tree.failed("empty", index, error))?;
            self.differs(index, "has other content");
        }
        Ok(())
    }

    fn differs(&mut self, index: usize, what: &str) {
        let path = self.tree.path(index);
        self.first.get_or_insert_with(|| format!("{path} {what}"));
    }
}

fn count(directory: &impl AsFd) -> rustix::io::Result<usize> {
    let mut count = 0;
    for entry in Dir::read_from(directory)? {
        count += usize::from(!matches!(entry?.file_name().to_bytes(), b"." | b".."));
    }
    Ok(count)
}
