//! Reads an archive: an image layout (OCI image specification, "Image Layout") in a tar, or the output of `docker save`
//! and `podman save` (see `docker`). Its files are in any order, and the whole archive is plain or compressed. Blobs are
//! hashed and stored during the transfer; the documents are interpreted at the end, since `index.json` often comes last.

use std::{
    collections::HashSet,
    io::{self, BufReader, Cursor, Read},
    thread,
};

use flate2::read::MultiGzDecoder;
use oci_spec::image::{Descriptor, Digest, OciLayout};
use tar::EntryType;

mod docker;
mod early;
mod import;
pub(crate) mod inspect;
mod layout;
pub(crate) mod runnable;

use early::EarlyChecks;

use crate::{
    content::{
        bounded::{Bounded, stream_error},
        ingest::{Blobs, Ingest},
    },
    digest,
    error::Error,
    layer::{
        LayerBlob, LayerSpec,
        path::{PathProblem, clean},
        stream::{Encoding, MAGIC_BYTES, zstd_decoder},
    },
    limits::Limits,
    manifest::{
        document,
        image::Image,
        layout_index::{Selection, resolve},
    },
    outline::Outlines,
    parallel,
    tarball::{TarError, Tarball, header::Member},
};

/// The files of an archive that are not blobs.
#[derive(Debug, Default)]
struct Documents {
    marker: Option<Vec<u8>>,
    index: Option<Vec<u8>>,
    /// A Docker archive's `manifest.json`, and the files that it may refer to.
    docker: Option<Vec<u8>>,
    files: docker::Files,
}

/// Stores the archive's blobs, and checks the selected image with all its layers.
pub(crate) fn receive(
    archive: impl Read,
    ingest: &mut Ingest,
    selection: Selection<'_>,
    limits: &Limits,
    outlines: &Outlines,
) -> Result<Image, Error> {
    let mut archive = Bounded::new(archive, limits.archive_bytes);
    let magic = first_bytes(&mut archive, limits)?;
    let encoding = Encoding::of_magic(&magic);
    refuse_other_compression(&magic)?;
    let archive = Cursor::new(magic).chain(archive);
    let mut checks = EarlyChecks::default();
    let documents = match encoding {
        Encoding::Plain => receive_files(archive, ingest, &mut checks, limits)?,
        Encoding::Gzip => {
            let inflated = MultiGzDecoder::new(archive);
            receive_files(
                inflated_within(inflated, limits),
                ingest,
                &mut checks,
                limits,
            )?
        }
        Encoding::Zstd => {
            let inflated = Unzstd::new(archive).map_err(Error::Receive)?;
            receive_files(
                inflated_within(inflated, limits),
                ingest,
                &mut checks,
                limits,
            )?
        }
    };
    let image = documents.resolve(ingest, selection, limits)?;
    checks.add_outlines(outlines);
    check_layers(ingest, &checks, &image, limits, outlines)?;
    Ok(image)
}

/// Checks that each layer is present and valid, and that its digest and diff-id are right; several layers at once, while
/// the blobs are synced to disk. Layers that were checked during the transfer are not read again.
fn check_layers(
    ingest: &Ingest,
    checks: &EarlyChecks,
    image: &Image,
    limits: &Limits,
    outlines: &Outlines,
) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let layers: Vec<_> = image
        .layers()
        .into_iter()
        .filter(|(layer, diff_id)| seen.insert((layer.digest().clone(), diff_id.clone())))
        .filter(|(layer, diff_id)| !checks.contain(layer, diff_id))
        .collect();
    thread::scope(|scope| {
        let synced = scope.spawn(|| ingest.sync(&image.blobs()));
        parallel::for_each(&layers, |(layer, diff_id)| {
            check_layer(ingest, layer, diff_id, limits, outlines)
        })?;
        synced
            .join()
            .map_err(|_| Error::Receive(io::Error::other("the syncing thread panicked")))?
    })
}

fn check_layer(
    ingest: &Ingest,
    descriptor: &Descriptor,
    diff_id: &Digest,
    limits: &Limits,
    outlines: &Outlines,
) -> Result<(), Error> {
    let digest = descriptor.digest();
    let missing = || Error::BlobMissing {
        what: "a layer".to_owned(),
        digest: digest.clone(),
    };
    let (path, _) = ingest.find(digest)?.ok_or_else(missing)?;
    let layer = LayerSpec {
        descriptor,
        diff_id: Some(diff_id),
        limits,
    };
    LayerBlob { path, layer }.check(outlines)
}

impl Documents {
    /// The selected image. An OCI layout takes precedence over the `manifest.json` that newer `docker save` adds to it.
    fn resolve(
        self,
        ingest: &mut Ingest,
        selection: Selection<'_>,
        limits: &Limits,
    ) -> Result<Image, Error> {
        match (self.marker, self.index, self.docker) {
            (Some(marker), Some(index), _) => {
                check_marker(&marker)?;
                resolve(ingest, &index, selection, limits)
            }
            (_, _, Some(docker)) => {
                docker::resolve(ingest, &docker, &self.files, selection, limits)
            }
            (None, _, None) => Err(Error::NotAnArchive {
                reason: "it has no file oci-layout, nor manifest.json".to_owned(),
            }),
            (Some(_), None, None) => Err(Error::NotAnArchive {
                reason: "it has no file index.json".to_owned(),
            }),
        }
    }
}

/// Checks the file `oci-layout`.
fn check_marker(marker: &[u8]) -> Result<(), Error> {
    let marker: OciLayout = document::parse("oci-layout", marker)?;
    let version = marker.image_layout_version();
    if version == "1.0.0" {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("version {version} of the OCI image layout"),
        hint: "; 1.0.0 is",
    })
}

fn receive_files(
    archive: impl Read,
    ingest: &mut Ingest,
    checks: &mut EarlyChecks,
    limits: &Limits,
) -> Result<Documents, Error> {
    let mut tarball = Tarball::new(archive, limits.layer_entries);
    let mut documents = Documents::default();
    while let Some(member) = tarball
        .next_member()
        .map_err(|error| tar_error(error, limits))?
    {
        let path = file_path(&member)?;
        let read = |buffer: &mut [u8]| {
            tarball
                .read_data(buffer)
                .map_err(|error| tar_error(error, limits))
        };
        match path.as_str() {
            "oci-layout" => documents.marker = Some(read_document(&member, read, limits)?),
            "index.json" => documents.index = Some(read_document(&member, read, limits)?),
            "manifest.json" => documents.docker = Some(read_document(&member, read, limits)?),
            _ => {
                if let Some(digest) = blob_digest(&path, &member)? {
                    checks.receive(ingest, &digest, member.size, read, limits)?;
                } else if documents.marker.is_none() && docker::may_be_part(&path) {
                    match member.kind {
                        EntryType::Regular => {
                            documents.files.put(path, ingest.receive_unnamed(read)?)?;
                        }
                        _ => documents.files.put_link(path, &member)?,
                    }
                }
            }
        }
    }
    if !tarball.is_end_marked() {
        return Err(Error::ArchiveTruncated {
            within: "the list of its files".to_owned(),
        });
    }
    // Reading to the end lets the sender receive the answer instead of a broken connection.
    io::copy(&mut tarball.into_stream(), &mut io::sink())
        .map_err(|error| tar_error(TarError::Stream(error), limits))?;
    Ok(documents)
}

fn file_path(member: &Member) -> Result<String, Error> {
    let refuse = |reason: &str| Error::NotAnArchive {
        reason: format!("its file {:?} has {reason}", member.shown()),
    };
    if member.sparse.is_some() {
        return Err(refuse("holes, as `tar --sparse` makes them"));
    }
    let path = clean(&member.path).map_err(|problem| match problem {
        PathProblem::Escapes => refuse("a path that leads out of it"),
        PathProblem::Malformed(reason) => refuse(reason),
    })?;
    String::from_utf8(path).map_err(|_| refuse("a name that is not UTF-8"))
}

/// The digest of the blob at this path; `None` if the file is not a blob, or of an unknown algorithm.
fn blob_digest(path: &str, member: &Member) -> Result<Option<Digest>, Error> {
    let named = path.strip_prefix("blobs/");
    let Some(digest) = named.and_then(digest::from_blob_path) else {
        return Ok(None);
    };
    let bad = |reason: &str| Error::NotAnArchive {
        reason: format!("its file {path:?} {reason}"),
    };
    if member.kind != EntryType::Regular {
        return Err(bad("is not a regular file"));
    }
    digest.map(Some).map_err(bad)
}

fn read_document(
    member: &Member,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
    limits: &Limits,
) -> Result<Vec<u8>, Error> {
    document::check_size(&member.shown(), member.size, limits)?;
    let mut document = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match read(&mut buffer)? {
            0 => return Ok(document),
            read => document.extend_from_slice(&buffer[..read]),
        }
    }
}

/// The first bytes, which identify the compression.
fn first_bytes(archive: &mut impl Read, limits: &Limits) -> Result<Vec<u8>, Error> {
    let mut magic = Vec::new();
    archive
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut magic)
        .map_err(|error| stream_error(error, limits))?;
    if magic.is_empty() {
        return Err(Error::NotAnArchive {
            reason: "it is empty".to_owned(),
        });
    }
    Ok(magic)
}

fn refuse_other_compression(magic: &[u8]) -> Result<(), Error> {
    let name = match magic {
        [0xfd, b'7', b'z', b'X', b'Z', 0] => "xz",
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => "bzip2",
        _ => return Ok(()),
    };
    Err(Error::Unsupported {
        what: format!("an archive compressed with {name}"),
        hint: "; send it plain, or compressed with gzip or zstd",
    })
}

fn inflated_within<R: Read>(inflated: R, limits: &Limits) -> impl Read + use<R> {
    BufReader::new(Bounded::new(inflated, limits.archive_bytes))
}

fn tar_error(error: TarError, limits: &Limits) -> Error {
    match error {
        TarError::Stream(error) => stream_error(error, limits),
        TarError::Truncated(within) => Error::ArchiveTruncated { within },
        TarError::NotTar => Error::NotAnArchive {
            reason: "it is not a tar".to_owned(),
        },
        TarError::Malformed(reason) => Error::NotAnArchive { reason },
        TarError::TooManyHeaders => Error::TooLarge {
            what: "the number of the archive's files".to_owned(),
            limit: limits.layer_entries.to_string(),
        },
    }
}

/// Decompresses zstd, and distinguishes its own errors from those of the underlying stream.
struct Unzstd<R: Read> {
    decoder: zstd::Decoder<'static, BufReader<ErrorTracker<R>>>,
}

impl<R: Read> Unzstd<R> {
    fn new(stream: R) -> io::Result<Self> {
        let tracker = ErrorTracker {
            inner: stream,
            failed: false,
        };
        let decoder = zstd_decoder(BufReader::new(tracker))?;
        Ok(Self { decoder })
    }
}

impl<R: Read> Read for Unzstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer).map_err(|error| {
            if self.decoder.get_ref().get_ref().failed
                || error.kind() == io::ErrorKind::UnexpectedEof
            {
                error
            } else {
                io::Error::new(io::ErrorKind::InvalidData, error)
            }
        })
    }
}

/// Records whether reading failed.
struct ErrorTracker<R> {
    inner: R,
    failed: bool,
}

impl<R: Read> Read for ErrorTracker<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        self.failed |= read.is_err();
        read
    }
}
