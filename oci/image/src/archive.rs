//! Takes an OCI archive: an image layout (OCI image specification, "Image Layout") in a tar, its files
//! in any order. Blobs stream to disk while they are hashed; what they mean is found out afterwards,
//! since `index.json` often comes last.

use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;
use oci_spec::image::{Digest, OciLayout};
use tar::EntryType;

use crate::{
    digest, document,
    error::Error,
    header::Member,
    image::{Image, Platform},
    ingest::{Blobs, Ingest},
    layer::{CheckOnly, LayerBlob},
    limits::Limits,
    path::{PathProblem, normalise},
    resolve::resolve,
    tarball::{TarError, Tarball},
};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What an archive holds beside its blobs.
#[derive(Debug, Default)]
struct Documents {
    marker: Option<Vec<u8>>,
    index: Option<Vec<u8>>,
    is_docker: bool,
}

/// Takes the archive's blobs, and checks the image for `platform` with all its layers.
pub(crate) fn receive(
    archive: impl Read,
    ingest: &mut Ingest,
    platform: &Platform,
    limits: &Limits,
) -> Result<Image, Error> {
    let mut archive = Bounded {
        inner: archive,
        left: limits.archive_bytes,
    };
    let documents = match first_bytes(&mut archive, limits)? {
        magic if magic == GZIP_MAGIC => {
            let inflated = MultiGzDecoder::new((&magic[..]).chain(archive));
            let bounded = Bounded {
                inner: inflated,
                left: limits.archive_bytes,
            };
            receive_files(BufReader::new(bounded), ingest, limits)?
        }
        magic => receive_files((&magic[..]).chain(archive), ingest, limits)?,
    };
    let index = documents.check()?;
    let image = resolve(ingest, &index, platform, limits)?;
    check_layers(ingest, &image, limits)?;
    Ok(image)
}

/// Reads a single blob as it comes, with the archive's bound and errors.
pub(crate) fn bounded(
    blob: impl Read,
    limits: &Limits,
) -> impl FnMut(&mut [u8]) -> Result<usize, Error> {
    let mut blob = Bounded {
        inner: blob,
        left: limits.archive_bytes,
    };
    move |buffer| loop {
        match blob.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read.map_err(|error| stream_error(error, limits)),
        }
    }
}

/// Checks that each layer is there and is, inside and outside, what its digests say.
fn check_layers(ingest: &Ingest, image: &Image, limits: &Limits) -> Result<(), Error> {
    for (descriptor, diff_id) in &image.layers() {
        let digest = descriptor.digest();
        let missing = || Error::BlobMissing {
            what: "a layer".to_owned(),
            digest: digest.clone(),
        };
        let (path, _) = ingest.find(digest)?.ok_or_else(missing)?;
        LayerBlob {
            path,
            descriptor,
            diff_id,
            limits,
        }
        .read(&mut CheckOnly)?;
    }
    Ok(())
}

impl Documents {
    /// The index, if this is an OCI layout at all.
    fn check(self) -> Result<Vec<u8>, Error> {
        let not_a_layout = |reason: &str| Error::NotAnArchive {
            reason: reason.to_owned(),
        };
        let Some(marker) = self.marker else {
            return Err(match self.is_docker {
                true => Error::DockerArchive,
                false => not_a_layout("it has no file oci-layout"),
            });
        };
        let marker: OciLayout = document::parse("oci-layout", &marker)?;
        let version = marker.image_layout_version();
        if version != "1.0.0" {
            let what = format!("version {version} of the OCI image layout");
            return Err(Error::Unsupported {
                what,
                hint: "; 1.0.0 is",
            });
        }
        self.index
            .ok_or_else(|| not_a_layout("it has no file index.json"))
    }
}

fn receive_files(
    archive: impl Read,
    ingest: &mut Ingest,
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
            "manifest.json" => documents.is_docker = true,
            _ => {
                if let Some(digest) = blob_digest(&path, &member)? {
                    ingest.take(&digest, read)?;
                }
            }
        }
    }
    if !tarball.is_end_marked() {
        return Err(Error::ArchiveTruncated {
            within: "the list of its files".to_owned(),
        });
    }
    // The sender is heard out, so that it gets the answer and not a broken connection.
    io::copy(&mut tarball.into_stream(), &mut io::sink())
        .map_err(|error| tar_error(TarError::Stream(error), limits))?;
    Ok(documents)
}

fn file_path(member: &Member) -> Result<String, Error> {
    let refuse = |reason: &str| Error::NotAnArchive {
        reason: format!("its file {:?} has {reason}", member.shown()),
    };
    let path = normalise(&member.path).map_err(|problem| match problem {
        PathProblem::Escapes => refuse("a path with `..`"),
        PathProblem::Malformed(reason) => refuse(reason),
    })?;
    String::from_utf8(path).map_err(|_| refuse("a name that is not UTF-8"))
}

/// The digest of the blob that is at this path; `None` if it is no blob, or by an algorithm that is not known.
fn blob_digest(path: &str, member: &Member) -> Result<Option<Digest>, Error> {
    let Some(hex) = path.strip_prefix("blobs/sha256/") else {
        return Ok(None);
    };
    let bad = |reason: &str| Error::NotAnArchive {
        reason: format!("its file {path:?} {reason}"),
    };
    if member.kind != EntryType::Regular {
        return Err(bad("is not a regular file"));
    }
    digest::from_hex(hex)
        .map(Some)
        .ok_or_else(|| bad("is not named by a SHA-256 digest"))
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

/// The first two bytes tell a gzip stream from a tar.
fn first_bytes(archive: &mut impl Read, limits: &Limits) -> Result<[u8; 2], Error> {
    let mut magic = [0; 2];
    archive
        .read_exact(&mut magic)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::NotAnArchive {
                reason: "it is empty".to_owned(),
            },
            _ => stream_error(error, limits),
        })?;
    Ok(magic)
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

fn stream_error(error: io::Error, limits: &Limits) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<OverLimit>()) {
        let limit = format!("{} bytes", limits.archive_bytes);
        return Error::TooLarge {
            what: "the archive".to_owned(),
            limit,
        };
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Error::ArchiveTruncated {
            within: format!("the stream ({error})"),
        },
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Error::NotAnArchive {
            reason: format!("it cannot be decompressed: {error}"),
        },
        _ => Error::Receive(error),
    }
}

/// Reads no more than a limit; the first byte beyond it is an error.
#[derive(Debug)]
struct Bounded<R> {
    inner: R,
    left: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("over the limit")]
struct OverLimit;

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(OverLimit))?;
        Ok(read)
    }
}
