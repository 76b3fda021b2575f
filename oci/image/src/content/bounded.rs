//! Reads an incoming stream up to a limit, and explains its errors.

use std::io::{self, Read};

use crate::{error::Error, limits::Limits};

/// Reads no more than a limit; the first byte beyond it is an error.
#[derive(Debug)]
pub(crate) struct Bounded<R> {
    inner: R,
    left_bytes: u64,
}

impl<R> Bounded<R> {
    pub(crate) fn new(inner: R, limit_bytes: u64) -> Self {
        Self {
            inner,
            left_bytes: limit_bytes,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left_bytes = self
            .left_bytes
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(OverLimit))?;
        Ok(read)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("over the limit")]
struct OverLimit;

/// Reads a single blob, with an archive's limit and errors.
pub(crate) fn bounded_blob(
    blob: impl Read,
    limits: &Limits,
) -> impl FnMut(&mut [u8]) -> Result<usize, Error> {
    let mut blob = Bounded::new(blob, limits.archive_bytes);
    move |buffer| loop {
        match blob.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read.map_err(|error| stream_error(error, limits)),
        }
    }
}

/// Explains why an archive's stream cannot be read on.
pub(crate) fn stream_error(error: io::Error, limits: &Limits) -> Error {
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
        _ if error.to_string().contains("too much memory") => Error::TooLarge {
            what: "the zstd window of the archive".to_owned(),
            limit: "128 MiB".to_owned(),
        },
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Error::NotAnArchive {
            reason: format!("it cannot be decompressed: {error}"),
        },
        _ => Error::Receive(error),
    }
}
