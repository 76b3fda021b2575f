//! A position in the tree on the disk, by the numbers of a manifest's entries.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::fs::{Mode, OFlags, openat};

use super::{Fault, entry::Entry, walk::path_text};

/// How a directory is opened: never through a link.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The entries of a manifest, each with its directory.
pub(super) struct Tree<'a> {
    pub(super) entries: &'a [Entry],
    parents: Vec<usize>,
}

impl<'a> Tree<'a> {
    /// Of entries that were checked when they were read.
    pub(super) fn new(entries: &'a [Entry]) -> Self {
        let mut above: Vec<usize> = Vec::new();
        let parents = entries.iter().enumerate().map(|(index, entry)| {
            above.truncate(entry.depth);
            let parent = above.last().copied().unwrap_or(0);
            above.push(index);
            parent
        });
        Self {
            parents: parents.collect(),
            entries,
        }
    }

    /// The directories above an entry, without the root, the lowest first.
    fn above(&self, index: usize) -> impl Iterator<Item = usize> {
        let parents =
            std::iter::successors(Some(self.parents[index]), |it| Some(self.parents[*it]));
        parents.take_while(|it| *it != 0)
    }

    /// The path of an entry, for messages.
    pub(super) fn path(&self, index: usize) -> String {
        if index == 0 {
            return "the volume".to_owned();
        }
        let mut names: Vec<usize> = std::iter::once(index).chain(self.above(index)).collect();
        names.reverse();
        path_text(names.iter().map(|it| self.entries[*it].name.0.as_slice()))
    }

    /// The numbers of entries in each directory.
    pub(super) fn children(&self) -> Vec<u32> {
        let mut counts = vec![0; self.entries.len()];
        for parent in self.parents.iter().skip(1) {
            counts[*parent] += 1;
        }
        counts
    }

    /// The name of an entry in its directory.
    pub(super) fn name(&self, index: usize) -> Result<CString, Fault> {
        let name = match index {
            0 => b".".to_vec(),
            _ => self.entries[index].name.0.clone(),
        };
        CString::new(name).map_err(|error| Fault::Malformed(error.to_string()))
    }

    pub(super) fn failed(
        &self,
        what: &'static str,
        index: usize,
        error: impl Into<std::io::Error>,
    ) -> Fault {
        Fault::io(what, self.path(index), error)
    }
}

/// The open directories above one entry.
pub(super) struct Position {
    root: OwnedFd,
    open: Vec<(OwnedFd, usize)>,
}

impl Position {
    pub(super) fn at_root(root: BorrowedFd<'_>) -> Result<Self, Fault> {
        let root = openat(root, c".", DIRECTORY, Mode::empty());
        let root = root.map_err(|errno| Fault::io("open", "the volume".to_owned(), errno))?;
        Ok(Self {
            root,
            open: Vec::new(),
        })
    }

    /// The directory of an entry. What is open already stays so.
    pub(super) fn directory_of(
        &mut self,
        tree: &Tree<'_>,
        index: usize,
    ) -> Result<BorrowedFd<'_>, Fault> {
        let mut above: Vec<usize> = tree.above(index).collect();
        above.reverse();
        let same = self.open.iter().zip(&above);
        let same = same.take_while(|((_, open), wanted)| open == *wanted);
        let same = same.count();
        self.open.truncate(same);
        for directory in &above[same..] {
            let name = tree.name(*directory)?;
            let opened = openat(self.top(), name, DIRECTORY, Mode::empty());
            let opened = opened.map_err(|errno| tree.failed("open", *directory, errno))?;
            self.open.push((opened, *directory));
        }
        Ok(self.top())
    }

    fn top(&self) -> BorrowedFd<'_> {
        self.open
            .last()
            .map_or(self.root.as_fd(), |(directory, _)| directory.as_fd())
    }
}
