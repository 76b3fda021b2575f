//! Imports an image from a directory that is an OCI layout. Only the blobs of the selected image are read.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use oci_spec::image::Digest;
use rustix::fs::OFlags;

use super::{check_layers, check_marker, early::EarlyChecks};
use crate::{
    content::{
        bounded::bounded_blob,
        ingest::{Blobs, Ingest},
    },
    digest::{algorithm, hex},
    error::Error,
    limits::Limits,
    manifest::{
        document,
        image::Image,
        layout_index::{Selection, resolve},
    },
    outline::Outlines,
};

/// Stores the selected image's blobs, and checks the image with all its layers.
pub(crate) fn receive(
    layout: &Path,
    ingest: &mut Ingest,
    selection: Selection<'_>,
    limits: &Limits,
    outlines: &Outlines,
) -> Result<Image, Error> {
    let layout = Layout { root: layout };
    check_marker(&layout.document("oci-layout", limits)?)?;
    let index = layout.document("index.json", limits)?;
    let image = resolve(&layout, &index, selection, limits)?;
    for digest in image.blobs() {
        let missing = || Error::BlobMissing {
            what: "a part of the image".to_owned(),
            digest: digest.clone(),
        };
        let (path, _) = layout.find(&digest)?.ok_or_else(missing)?;
        let blob = open(&path).map_err(|source| Error::io("read", &path, source))?;
        ingest.receive(&digest, bounded_blob(blob, limits))?;
    }
    check_layers(ingest, &EarlyChecks::default(), &image, limits, outlines)?;
    Ok(image)
}

struct Layout<'a> {
    root: &'a Path,
}

impl Layout<'_> {
    fn document(&self, name: &str, limits: &Limits) -> Result<Vec<u8>, Error> {
        let path = self.root.join(name);
        let read = |path: &Path| {
            let file = open(path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (file, bytes) = read(&path).map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotAnArchive {
                reason: format!("the directory {} has no file {name}", self.root.display()),
            },
            _ => Error::io("read", &path, error),
        })?;
        document::check_size(name, bytes, limits)?;
        let mut document = Vec::new();
        file.take(limits.document_bytes)
            .read_to_end(&mut document)
            .map_err(|source| Error::io("read", &path, source))?;
        Ok(document)
    }
}

impl Blobs for Layout<'_> {
    fn find(&self, digest: &Digest) -> Result<Option<(PathBuf, u64)>, Error> {
        let blobs = self.root.join("blobs").join(algorithm(digest)?);
        let path = blobs.join(hex(digest)?);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some((path, metadata.len()))),
            Ok(_) => Err(Error::NotAnArchive {
                reason: format!("{} is not a regular file", path.display()),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }
}

/// Opens a regular file without following a link, and without blocking on a FIFO.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}
