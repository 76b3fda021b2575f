//! Makes one layer in an empty directory, of a blob that is read to its end and checked on the way.

use std::{
    fs::File,
    io::Read,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use oci_spec::image::Digest;
use rustix::fs::{Mode, OFlags, openat};

use crate::{
    erofs::Indexer,
    error::Error,
    helper::Helper,
    layer::LayerOf,
    layers::Form,
    limits::INDEXED_ENTRIES,
    scratch::Scratch,
    seal::{DirectorySeal, Seal},
    unpack::{Unpacker, umask},
};

/// Name of an image within its directory.
pub(crate) const IMAGE: &str = "image";
/// What errors call a layer that is not in a file.
pub(crate) const COMING: &str = "a layer that comes";

/// Where a layer's blob comes from.
pub(crate) enum Source<'a> {
    File(File, &'a Path),
    Stream(&'a mut (dyn Read + Send)),
}

/// An empty directory, for one layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room<'a> {
    pub(crate) directory: &'a File,
    /// For people.
    pub(crate) path: &'a Path,
    /// Of the process that makes the layer.
    pub(crate) umask: u32,
}

/// Makes a layer in a scratch directory; what a reader can check it by, and its diff-id.
pub(crate) fn make(
    scratch: &Scratch,
    form: Form,
    layer: LayerOf<'_>,
    source: Source<'_>,
    helper: Option<&Helper>,
) -> Result<(Seal, Digest), Error> {
    if let Some(helper) = helper {
        return helper.make(scratch.path(), form, layer, source);
    }
    let room = Room {
        directory: scratch.handle(),
        path: scratch.path(),
        umask: umask(),
    };
    match source {
        Source::File(blob, path) => make_here(room, form, layer, blob, path),
        Source::Stream(blob) => make_here(room, form, layer, blob, Path::new(COMING)),
    }
}

/// Makes a layer by this process itself.
pub(crate) fn make_here(
    room: Room<'_>,
    form: Form,
    layer: LayerOf<'_>,
    blob: impl Read + Send,
    from: &Path,
) -> Result<(Seal, Digest), Error> {
    if form == Form::Erofs {
        let (file, path) = new_image(room)?;
        let mut indexer = Indexer::new(file, &path, layer.name(), INDEXED_ENTRIES)?;
        let diff_id = layer.read(blob, from, &mut indexer)?;
        return Ok((Seal::File(indexer.finish()?), diff_id));
    }
    let mut unpacker = Unpacker::new(room.directory.as_fd(), layer.name(), room.umask)?;
    let diff_id = layer.read(blob, from, &mut unpacker)?;
    let known = unpacker.finish()?;
    let seal = DirectorySeal::with_known(room.directory, &known)
        .map_err(|source| Error::io("read", room.path, source))?;
    Ok((Seal::Directory(seal), diff_id))
}

fn new_image(room: Room<'_>) -> Result<(File, PathBuf), Error> {
    let path = room.path.join(IMAGE);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(room.directory, IMAGE, flags, Mode::from_raw_mode(0o600))
        .map_err(|source| Error::io("make", &path, source))?;
    Ok((file.into(), path))
}
