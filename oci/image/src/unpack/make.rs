//! Unpacks one layer into an empty directory. The blob is read to its end and checked.

use std::{
    fs::File,
    io::Read,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use oci_spec::image::Digest;
use rustix::fs::{Mode, OFlags, openat};

use super::{
    helper::Helper,
    layers::Form,
    writer::{LayerWriter, umask},
};
use crate::{
    erofs::ImageWriter,
    error::Error,
    layer::{LayerSpec, STREAM},
    limits::INDEXED_ENTRIES,
    scratch::Scratch,
    seal::{DirectorySeal, Seal},
};

/// Name of an EROFS image within its directory.
pub(crate) const IMAGE: &str = "image";

/// The source of a layer's blob.
pub(crate) enum Source<'a> {
    File(File, &'a Path),
    Stream(&'a mut (dyn Read + Send)),
}

/// The empty directory that one layer is unpacked into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) directory: &'a File,
    /// The path in errors.
    pub(crate) path: &'a Path,
    /// The umask of this process.
    pub(crate) umask: u32,
}

/// Unpacks a layer into a scratch directory, in the helper's process if there is one; returns its seal and its diff-id.
pub(crate) fn unpack_into(
    scratch: &Scratch,
    form: Form,
    layer: LayerSpec<'_>,
    source: Source<'_>,
    helper: Option<&Helper>,
) -> Result<(Seal, Digest), Error> {
    if let Some(helper) = helper {
        return helper.unpack(scratch.path(), form, layer, source);
    }
    let target = Target {
        directory: scratch.handle(),
        path: scratch.path(),
        umask: umask(),
    };
    match source {
        Source::File(blob, path) => unpack_here(target, form, layer, blob, path),
        Source::Stream(blob) => unpack_here(target, form, layer, blob, Path::new(STREAM)),
    }
}

/// Unpacks a layer in this process.
pub(crate) fn unpack_here(
    target: Target<'_>,
    form: Form,
    layer: LayerSpec<'_>,
    blob: impl Read + Send,
    from: &Path,
) -> Result<(Seal, Digest), Error> {
    if form == Form::Erofs {
        let (file, path) = new_image(target)?;
        let most = (INDEXED_ENTRIES, layer.limits.layer_tree_bytes);
        let mut writer = ImageWriter::new(file, &path, layer.name(), most)?;
        let diff_id = layer.read(blob, from, &mut writer)?;
        return Ok((Seal::File(writer.finish()?), diff_id));
    }
    let mut writer = LayerWriter::new(
        target.directory.as_fd(),
        layer.name(),
        target.umask,
        layer.limits.layer_entries,
    )?;
    let diff_id = layer.read(blob, from, &mut writer)?;
    let known = writer.finish()?;
    let seal = DirectorySeal::with_known(target.directory, &known)
        .map_err(|source| Error::io("read", target.path, source))?;
    Ok((Seal::Directory(seal), diff_id))
}

fn new_image(target: Target<'_>) -> Result<(File, PathBuf), Error> {
    let path = target.path.join(IMAGE);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(target.directory, IMAGE, flags, Mode::from_raw_mode(0o600))
        .map_err(|source| Error::io("create", &path, source))?;
    Ok((file.into(), path))
}
