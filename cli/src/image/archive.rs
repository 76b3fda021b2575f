//! An archive that is sent as a whole.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use reqwest::{Body, multipart::Part};
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::{advance, progress};
use crate::Error;

/// Bytes between the writer of a tar and the connection.
const PIPE_BYTES: usize = 256 << 10;

/// The archive, read while it is sent.
pub(super) async fn archive_part(path: &Path) -> Result<Part, Error> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(Error::input("read the image", path))?;
    let length = file
        .metadata()
        .await
        .map_err(Error::input("read the image", path))?
        .len();
    let bar = progress(length);
    let stream = ReaderStream::with_capacity(file, PIPE_BYTES)
        .inspect_ok(move |chunk| advance(&bar, chunk.len()));
    Ok(Part::stream_with_length(Body::wrap_stream(stream), length))
}

/// An OCI layout directory as a tar that is written while it is sent.
pub(super) fn layout_part(directory: &Path) -> Result<Part, Error> {
    let files = layout_files(directory)?;
    let bar = progress(files.iter().map(|(_, size)| size).sum());
    let (reader, writer) = tokio::io::duplex(PIPE_BYTES);
    let directory = directory.to_owned();
    let writing = tokio::task::spawn_blocking(move || {
        let names = files.iter().map(|(name, _)| name.as_path());
        write_tar(&directory, names, SyncIoBridge::new(writer))
    });
    // An error of the writer must abort the request: a truncated archive could look complete to the reader.
    let failure = async move {
        match writing.await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    };
    let failure = futures_util::stream::once(failure).try_filter_map(async |chunk| Ok(chunk));
    let stream = ReaderStream::with_capacity(reader, PIPE_BYTES)
        .inspect_ok(move |chunk| advance(&bar, chunk.len()));
    let stream = futures_util::StreamExt::chain(stream, failure);
    Ok(Part::stream(Body::wrap_stream(stream)))
}

/// The files of an OCI layout (image-spec, image-layout.md) and their sizes, sorted; other files of the directory are left out.
fn layout_files(directory: &Path) -> Result<Vec<(PathBuf, u64)>, Error> {
    let mut names = vec![PathBuf::from("oci-layout"), PathBuf::from("index.json")];
    for algorithm in sorted(&directory.join("blobs"))? {
        let algorithm = Path::new("blobs").join(algorithm);
        let blobs = sorted(&directory.join(&algorithm))?;
        names.extend(blobs.into_iter().map(|blob| algorithm.join(blob)));
    }
    let size = |name: PathBuf| {
        let path = directory.join(&name);
        let size = fs::metadata(&path)
            .map_err(Error::input("read the image's", &path))?
            .len();
        Ok((name, size))
    };
    names.into_iter().map(size).collect()
}

fn sorted(directory: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    let entries = fs::read_dir(directory).map_err(Error::input("read the image's", directory))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    Ok(names)
}

fn write_tar<'a>(
    directory: &Path,
    names: impl Iterator<Item = &'a Path>,
    to: impl Write,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(to);
    for name in names {
        tar.append_file(name, &mut File::open(directory.join(name))?)?;
    }
    tar.into_inner()?.flush()
}

#[cfg(test)]
mod tests;
