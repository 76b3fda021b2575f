//! Reads and checks a layer: its digest and diff-id, and each entry. A [`Sink`] receives the entries: an import only
//! checks them, unpacking writes them.

pub(crate) mod check;
pub(crate) mod mark;
pub(crate) mod path;
pub(crate) mod stream;
pub(crate) mod tree;
pub(crate) mod xattrs;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::{Descriptor, Digest};
use tar::EntryType;

use self::{
    check::Check,
    path::{PathProblem, check_name, clean, split},
    stream::{Chunks, Encoding, Expected, ZSTD_WINDOW_LIMIT, inflate, is_window_too_large},
};
use crate::{
    digest::digest_like,
    error::Error,
    limits::{Limits, PATH_BYTES},
    outline::Outlines,
    tarball::{TarError, Tarball, header::Member},
};

/// Prefix of a whiteout (OCI image specification, "Whiteouts"): it hides a name of the lower layers.
const WHITEOUT: &[u8] = b".wh.";
/// Marks a directory that hides the content of the lower layers' directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of AUFS's internal files.
const AUFS: &[u8] = b".wh..wh.";
/// The path in errors for a layer that is not read from a file.
pub(crate) const STREAM: &str = "the layer's stream";

/// A layer in a file.
#[derive(Debug)]
pub(crate) struct LayerBlob<'a> {
    pub(crate) path: PathBuf,
    pub(crate) layer: LayerSpec<'a>,
}

/// The expected properties of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerSpec<'a> {
    pub(crate) descriptor: &'a Descriptor,
    /// `None` while the image's configuration is unknown.
    pub(crate) diff_id: Option<&'a Digest>,
    pub(crate) limits: &'a Limits,
}

/// Receives a layer's entries, in order.
pub(crate) trait Sink {
    fn entry(&mut self, entry: &Entry, data: &mut Data<'_>) -> Result<(), Error>;
}

/// An entry of a layer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the layer's root, cleaned; empty for the root itself.
    pub(crate) path: Vec<u8>,
    pub(crate) change: Change,
}

/// The effect of an entry on its path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Creates the member. A hard link's target is relative to the layer's root, and cleaned.
    Make(Member),
    /// Hides the path of the lower layers.
    Whiteout,
    /// Hides the content of the lower layers' directory.
    Opaque,
}

/// Reads the current entry's data; returns 0 at its end.
pub(crate) type Data<'a> = dyn FnMut(&mut [u8]) -> Result<usize, Error> + 'a;

/// Why reading a layer stopped.
#[derive(Debug)]
enum Failure {
    Layer(Error),
    Stream(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Stream(error)
    }
}

impl LayerBlob<'_> {
    /// Checks the layer with its digests, and keeps its outline.
    pub(crate) fn check(&self, outlines: &Outlines) -> Result<(), Error> {
        let mut check = Check::new(self.layer.name(), self.layer.limits);
        self.read(&mut check)?;
        if let Some(outline) = check.outline() {
            outlines.insert(self.layer.name(), Arc::new(outline));
        }
        Ok(())
    }

    /// Passes each entry to `sink`; returns successfully only if digest and diff-id are right.
    pub(crate) fn read(&self, sink: &mut dyn Sink) -> Result<(), Error> {
        self.layer.read(self.open()?, &self.path, sink).map(drop)
    }

    /// Opens the file and checks its size.
    pub(crate) fn open(&self) -> Result<File, Error> {
        let failed = |source| Error::io("read", &self.path, source);
        let blob = File::open(&self.path).map_err(failed)?;
        let bytes = blob.metadata().map_err(failed)?.len();
        self.layer.check_size(bytes)?;
        Ok(blob)
    }
}

impl<'a> LayerSpec<'a> {
    /// Passes each entry of a stream to `sink`; returns the diff-id, and successfully only if digest and diff-id are right.
    /// `from` names the source in errors.
    pub(crate) fn read(
        &self,
        blob: impl Read + Send,
        from: &Path,
        sink: &mut dyn Sink,
    ) -> Result<Digest, Error> {
        self.read_as(Some(self.descriptor.digest()), blob, from, sink)
    }

    /// Like [`LayerSpec::read`], for a caller that checks the blob's own digest.
    pub(crate) fn read_checked(
        &self,
        blob: impl Read + Send,
        from: &Path,
        sink: &mut dyn Sink,
    ) -> Result<Digest, Error> {
        self.read_as(None, blob, from, sink)
    }

    fn read_as(
        &self,
        stored: Option<&Digest>,
        blob: impl Read + Send,
        from: &Path,
        sink: &mut dyn Sink,
    ) -> Result<Digest, Error> {
        self.check_media_type()?;
        let expected = Expected {
            stored,
            inflated: self.name(),
        };
        let limit = self.limits.layer_bytes;
        let work = |stream: &mut Chunks| {
            self.read_entries(stream, from, sink)
                .map_err(Failure::Layer)
        };
        let (done, hashes) =
            inflate(blob, &expected, limit, work).map_err(|failure| self.error(failure, from))?;
        let error = done.err().map(|failure| self.error(failure, from));
        // A damaged blob fails in many ways; the digest mismatch is the actual reason.
        if error.as_ref().is_none_or(Error::is_of_content) {
            self.check_size(hashes.stored_bytes)?;
            if let Some(hasher) = hashes.stored {
                self.check("layer", self.descriptor.digest(), hasher.finish())?;
            }
        }
        if let Some(error) = error {
            return Err(error);
        }
        let actual = hashes.inflated.finish();
        if let Some(diff_id) = self.diff_id {
            self.check("layer, decompressed,", diff_id, actual.clone())?;
        }
        Ok(actual)
    }

    /// The digest that identifies the layer in errors.
    pub(crate) fn name(&self) -> &'a Digest {
        self.diff_id.unwrap_or_else(|| self.descriptor.digest())
    }

    fn check_media_type(&self) -> Result<(), Error> {
        match Encoding::of(self.descriptor.media_type()) {
            Some(_) => Ok(()),
            None => Err(Error::Unsupported {
                what: format!("a layer of type {}", self.descriptor.media_type()),
                hint: "; layers are tar, tar+gzip or tar+zstd",
            }),
        }
    }

    fn check_size(&self, actual: u64) -> Result<(), Error> {
        let expected = self.descriptor.size();
        if actual == expected {
            return Ok(());
        }
        let what = format!("layer {}", self.descriptor.digest());
        Err(Error::SizeMismatch {
            what,
            expected,
            actual,
        })
    }

    fn read_entries(
        &self,
        stream: &mut Chunks,
        from: &Path,
        sink: &mut dyn Sink,
    ) -> Result<(), Error> {
        let mut tarball = Tarball::new(stream, self.limits.layer_entries);
        // Holes count as bytes though the stream does not contain them: copying such a file may write them out.
        let mut bytes: u64 = 0;
        let mut xattr_bytes: u64 = 0;
        loop {
            let member = match tarball.next_member() {
                Ok(Some(member)) => member,
                // An empty layer may be an empty stream.
                Err(TarError::NotTar) if *self.name() == digest_like(self.name(), b"") => {
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.tar_error(error, from)),
            };
            bytes = bytes.saturating_add(member.file_bytes());
            if bytes > self.limits.layer_bytes {
                return Err(self.too_large());
            }
            xattr_bytes += xattrs::kept_bytes(&member.xattrs);
            if xattr_bytes > self.limits.layer_xattr_bytes {
                return Err(Error::TooLarge {
                    what: format!("the extended attributes of layer {} together", self.name()),
                    limit: format!("{} bytes", self.limits.layer_xattr_bytes),
                });
            }
            if let Some(entry) = self.interpret(member)? {
                let mut data = |buffer: &mut [u8]| {
                    tarball
                        .read_data(buffer)
                        .map_err(|error| self.tar_error(error, from))
                };
                sink.entry(&entry, &mut data)?;
            }
        }
    }

    /// Checks a member's names and interprets them; `None` if the member has no effect.
    fn interpret(&self, mut member: Member) -> Result<Option<Entry>, Error> {
        let refuse = |problem| self.path_error(&member.path, problem);
        let path = clean(&member.path).map_err(refuse)?;
        let (parent, name) = split(&path);
        if name == OPAQUE {
            return Ok(Some(Entry {
                path: parent.to_vec(),
                change: Change::Opaque,
            }));
        }
        if path
            .split(|byte| *byte == b'/')
            .any(|name| name.starts_with(AUFS))
        {
            return Ok(None);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            check_name(hidden).map_err(refuse)?;
            let mut path = parent.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(hidden);
            return Ok(Some(Entry {
                path,
                change: Change::Whiteout,
            }));
        }
        if path.is_empty() && member.kind != EntryType::Directory {
            return Err(refuse(PathProblem::Malformed(
                "it replaces the root by something that is not a directory",
            )));
        }
        member.link = self.link_target(&member)?;
        if member.kind == EntryType::Link && member.link == path {
            return Err(refuse(PathProblem::Malformed(
                "it is a hard link to itself",
            )));
        }
        Ok(Some(Entry {
            path,
            change: Change::Make(member),
        }))
    }

    fn link_target(&self, member: &Member) -> Result<Vec<u8>, Error> {
        let refuse = |problem| self.path_error(&member.path, problem);
        match member.kind {
            EntryType::Link => clean(&member.link).map_err(refuse),
            EntryType::Symlink => match member.link.len() {
                1..=PATH_BYTES if !member.link.contains(&0) => Ok(member.link.clone()),
                _ => Err(refuse(PathProblem::Malformed(
                    "a link's target is empty or too long",
                ))),
            },
            _ => Ok(Vec::new()),
        }
    }

    fn check(&self, part: &str, expected: &Digest, actual: Digest) -> Result<(), Error> {
        if *expected == actual {
            return Ok(());
        }
        let what = format!("{part} {}", self.descriptor.digest());
        Err(Error::DigestMismatch {
            what,
            expected: expected.clone(),
            actual,
        })
    }

    fn error(&self, failure: Failure, from: &Path) -> Error {
        match failure {
            Failure::Layer(error) => error,
            Failure::Stream(error) => self.stream_error(error, from),
        }
    }

    fn tar_error(&self, error: TarError, from: &Path) -> Error {
        match error {
            TarError::Stream(error) => self.stream_error(error, from),
            TarError::Truncated(within) => self.malformed(format!("it ends within {within}")),
            TarError::NotTar => self.malformed("it is not a tar".to_owned()),
            TarError::Malformed(reason) => self.malformed(reason),
            TarError::TooManyHeaders => Error::TooLarge {
                what: format!("the number of entries of layer {}", self.name()),
                limit: format!("{}", self.limits.layer_entries),
            },
        }
    }

    fn stream_error(&self, error: io::Error, from: &Path) -> Error {
        match error.kind() {
            io::ErrorKind::FileTooLarge => self.too_large(),
            _ if error.raw_os_error().is_some() => Error::io("read", from, error),
            _ if is_window_too_large(&error) => Error::TooLarge {
                what: format!("the zstd window of layer {}", self.name()),
                limit: ZSTD_WINDOW_LIMIT.to_owned(),
            },
            _ => self.malformed(format!(
                "it cannot be decompressed as {}: {error}",
                self.descriptor.media_type()
            )),
        }
    }

    fn path_error(&self, path: &[u8], problem: PathProblem) -> Error {
        let path = String::from_utf8_lossy(path).into_owned();
        match problem {
            PathProblem::Escapes => Error::LayerPathEscapes {
                layer: self.name().clone(),
                path,
            },
            PathProblem::Malformed(reason) => self.malformed(format!("entry {path:?}: {reason}")),
        }
    }

    fn malformed(&self, reason: String) -> Error {
        Error::LayerMalformed {
            layer: self.name().clone(),
            reason,
        }
    }

    fn too_large(&self) -> Error {
        Error::TooLarge {
            what: format!("layer {}, decompressed,", self.name()),
            limit: format!("{} bytes", self.limits.layer_bytes),
        }
    }
}
