//! Receives a layer's entries: the files' data goes to the image at once, everything else into a tree.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use oci_spec::image::Digest;
use tar::EntryType;

use super::{index, output::Output};
use crate::{
    digest::digest_of,
    error::{Error, entry_error},
    layer::{
        Change, Data, Entry, Sink,
        tree::{FileData, Tree},
    },
    mount::{self, MountMethod},
    scratch::{self, Scratch},
    seal::FileSeal,
    tarball::header::Member,
};

/// Writes a layer as an EROFS image.
#[derive(Debug)]
pub(crate) struct ImageWriter<'a> {
    tree: Tree,
    output: Output,
    path: PathBuf,
    layer: &'a Digest,
    /// Most entries, and the most memory for their tree.
    most: (usize, u64),
}

/// Tests EROFS: writes a small image in a scratch directory, mounts it, and reads a file in it.
pub(crate) fn probe(scratch: &Scratch, method: MountMethod) -> Result<(), Error> {
    const TEXT: &[u8] = b"text";
    let path = scratch.path().join("image");
    let file = File::create_new(&path).map_err(|source| Error::io("create", &path, source))?;
    let layer = digest_of(b"");
    let mut writer = ImageWriter::new(file, &path, &layer, (2, u64::MAX))?;
    let mut text = TEXT;
    let mut data = |buffer: &mut [u8]| {
        text.read(buffer)
            .map_err(|source| Error::io("read", Path::new("memory"), source))
    };
    writer.file(b"file", &Member::file(TEXT.len() as u64), &mut data)?;
    writer.finish()?;
    let directory = scratch.path().join(scratch::MOUNT);
    let probed = || -> io::Result<()> {
        fs::create_dir(&directory)?;
        mount::mount(&path, &directory, method)?;
        let read = fs::read(directory.join("file"));
        mount::unmount(&directory)?;
        match read? == TEXT {
            true => Ok(()),
            false => Err(io::Error::other("the content of its file differs")),
        }
    };
    probed().map_err(|source| Error::Mount { path, source })
}

impl<'a> ImageWriter<'a> {
    /// Writes the layer with this diff-id into an empty file. A tree of more than `most` entries or bytes is refused with
    /// [`Error::TooManyToIndex`].
    pub(crate) fn new(
        file: File,
        path: &Path,
        layer: &'a Digest,
        most: (usize, u64),
    ) -> Result<Self, Error> {
        let output = Output::new(file).map_err(|source| Error::io("write", path, source))?;
        Ok(Self {
            tree: Tree::new(),
            output,
            path: path.to_owned(),
            layer,
            most,
        })
    }

    /// Writes the tree and the superblock; returns the file's checksums.
    pub(crate) fn finish(self) -> Result<FileSeal, Error> {
        let path = self.path;
        index::write(&self.tree, self.output).map_err(|error| match error {
            index::Failure::Write(source) => Error::io("write", &path, source),
            index::Failure::Attributes => {
                let reason =
                    "the extended attributes of an entry are too large together".to_owned();
                Error::LayerMalformed {
                    layer: self.layer.clone(),
                    reason,
                }
            }
        })
    }

    fn file(&mut self, path: &[u8], member: &Member, data: &mut Data<'_>) -> Result<(), Error> {
        let made = self.tree.file(path, member);
        let id = made.map_err(|errno| entry_error(self.layer, path, errno))?;
        let block = self.begin_file()?;
        match &member.sparse {
            None => self.copy(member.size, data)?,
            Some(sparse) => {
                let mut position = 0;
                for extent in &sparse.extents {
                    self.skip(extent.offset - position)?;
                    self.copy(extent.bytes, data)?;
                    position = extent.offset + extent.bytes;
                }
                self.skip(sparse.bytes - position)?;
            }
        }
        let bytes = member.file_bytes();
        self.tree.set_data(id, FileData { block, bytes });
        Ok(())
    }

    fn begin_file(&mut self) -> Result<u32, Error> {
        let begun = self.output.fill_block().and_then(|()| self.output.block());
        begun.map_err(|source| self.failed(source))
    }

    fn copy(&mut self, mut left: u64, data: &mut Data<'_>) -> Result<(), Error> {
        while left > 0 {
            let path = &self.path;
            let room = self.output.room();
            let room = room.map_err(|source| Error::io("write", path, source))?;
            let wanted = usize::try_from(left).map_or(room.len(), |left| left.min(room.len()));
            let read = data(&mut room[..wanted])?;
            if read == 0 {
                break;
            }
            self.output.advance(read);
            left -= read as u64;
        }
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Error> {
        self.output
            .skip(bytes)
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::io("write", &self.path, source)
    }
}

impl Sink for ImageWriter<'_> {
    fn entry(&mut self, entry: &Entry, data: &mut Data<'_>) -> Result<(), Error> {
        let path = &entry.path;
        if self.tree.len() >= self.most.0 || self.tree.bytes() > self.most.1 {
            return Err(Error::TooManyToIndex(self.layer.clone()));
        }
        let made = match &entry.change {
            Change::Make(member) if member.kind == EntryType::Regular => {
                return self.file(path, member, data);
            }
            Change::Make(member) => self.tree.make(path, member),
            Change::Whiteout => self.tree.whiteout(path),
            Change::Opaque => self.tree.set_opaque_at(path),
        };
        made.map_err(|errno| entry_error(self.layer, path, errno))
    }
}
