//! Decompresses a layer's blob: one thread inflates, another hashes the result, and the caller's thread reads it. They
//! exchange a fixed number of buffers, so memory is bounded.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use flate2::bufread::MultiGzDecoder;
use oci_spec::image::{Digest, MediaType};

use crate::{digest::Hasher, error::Error, limits::ZSTD_WINDOW_LOG};

/// The number of first bytes that identify a compression.
pub(crate) const MAGIC_BYTES: usize = 6;

const CHUNK_BYTES: usize = 256 << 10;
/// Capacity of the queue to each thread, in chunks.
const CHUNKS: usize = 3;

/// The compression of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

impl Encoding {
    /// The encoding of a layer's media type, OCI's or Docker's; `None` if it is not a known layer type.
    pub(crate) fn of(media_type: &MediaType) -> Option<Self> {
        use MediaType as M;
        Some(match media_type {
            M::ImageLayer => Self::Plain,
            M::ImageLayerGzip => Self::Gzip,
            M::ImageLayerZstd => Self::Zstd,
            M::Other(name) => match name.strip_prefix("application/vnd.docker.image.rootfs.")? {
                "diff.tar" => Self::Plain,
                "diff.tar.gzip" => Self::Gzip,
                "diff.tar.zstd" => Self::Zstd,
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The encoding identified by the first bytes.
    pub(crate) fn of_magic(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // The last one begins a skippable frame.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// The encoding identified by a file's first bytes.
    pub(crate) fn sniff(path: &Path) -> Result<Self, Error> {
        let mut magic = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAGIC_BYTES as u64).read_to_end(&mut magic))
            .map_err(|source| Error::io("read", path, source))?;
        Ok(Self::of_magic(&magic))
    }

    /// OCI's media type of a layer in this encoding.
    pub(crate) fn media_type(self) -> MediaType {
        match self {
            Self::Plain => MediaType::ImageLayer,
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }
}

/// The limit of a zstd window, for errors.
pub(crate) const ZSTD_WINDOW_LIMIT: &str = "128 MiB";

/// Whether zstd refused a frame because of its window.
pub(crate) fn is_window_too_large(error: &io::Error) -> bool {
    error.to_string().contains("too much memory")
}

/// Decompresses zstd with bounded memory.
pub(crate) fn zstd_decoder<R: BufRead>(stream: R) -> io::Result<zstd::Decoder<'static, R>> {
    let mut decoder = zstd::Decoder::with_buffer(stream)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

/// The expected digests of a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// Of the stored blob; `None` if the caller checks it.
    pub(crate) stored: Option<&'a Digest>,
    /// Of the decompressed content.
    pub(crate) inflated: &'a Digest,
}

/// The hashes computed by [`inflate`].
#[derive(Debug)]
pub(crate) struct Hashes {
    /// Of the stored blob, if requested. It covers the whole blob even after another failure, unless reading failed.
    pub(crate) stored: Option<Hasher>,
    pub(crate) stored_bytes: u64,
    /// Of the decompressed content, up to a failure.
    pub(crate) inflated: Hasher,
}

/// A piece of the decompressed content, or why there is no more.
type Chunk = io::Result<Vec<u8>>;

/// Decompresses `blob` while `work` reads it, then reads the rest, so that both hashes (by the algorithms of `expected`)
/// cover the whole blob. More than `limit` bytes are an error of kind `FileTooLarge`. An error of `work` is returned with
/// the hashes, since a digest mismatch takes precedence over it.
pub(crate) fn inflate<T, E: From<io::Error>>(
    blob: impl Read + Send,
    expected: &Expected<'_>,
    limit: u64,
    work: impl FnOnce(&mut Chunks) -> Result<T, E>,
) -> Result<(Result<T, E>, Hashes), E> {
    let (unhashed, to_hash) = sync_channel(CHUNKS);
    let (hashed, filled) = sync_channel(CHUNKS);
    let (spare, empty) = sync_channel(2 * CHUNKS + 3);
    let blob = Stored {
        blob,
        bytes: 0,
        hasher: expected.stored.map(Hasher::like),
    };
    let inflated = Hasher::like(expected.inflated);
    thread::scope(|scope| {
        let inflater = start(scope, "inflate", move || {
            produce(blob, limit, &unhashed, &empty)
        })?;
        let hasher = start(scope, "hash", move || pass_on(inflated, &to_hash, &hashed))?;
        let mut inflated = Chunks::new(filled, spare);
        let done = work(&mut inflated).and_then(|done| {
            io::copy(&mut inflated, &mut io::sink())?;
            Ok(done)
        });
        // After a failure the other threads must not block on a full queue.
        drop(inflated);
        let died = |_| io::Error::other("a thread that reads the layer panicked");
        let (stored, stored_bytes) = inflater.join().map_err(died)?;
        let hashes = Hashes {
            stored,
            stored_bytes,
            inflated: hasher.join().map_err(died)?,
        };
        Ok((done, hashes))
    })
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<thread::ScopedJoinHandle<'scope, T>> {
    let name = name.to_owned();
    thread::Builder::new().name(name).spawn_scoped(scope, work)
}

/// A stream of bytes from another thread, such as a blob's decompressed content.
#[derive(Debug)]
pub(crate) struct Chunks {
    filled: Receiver<Chunk>,
    spare: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
}

impl Chunks {
    fn new(filled: Receiver<Chunk>, spare: SyncSender<Vec<u8>>) -> Self {
        Self {
            filled,
            spare,
            chunk: Vec::new(),
            position: 0,
        }
    }
}

/// Sends bytes to the reader of [`Chunks`] on another thread.
#[derive(Debug)]
pub(crate) struct Feeder {
    filled: SyncSender<Chunk>,
    empty: Receiver<Vec<u8>>,
}

/// The two ends of a stream with a bounded queue.
pub(crate) fn feed() -> (Feeder, Chunks) {
    let (filled, to_read) = sync_channel(CHUNKS);
    let (spare, empty) = sync_channel(CHUNKS + 2);
    (Feeder { filled, empty }, Chunks::new(to_read, spare))
}

impl Feeder {
    /// Blocks while the queue is full. Returns whether the reader still exists.
    pub(crate) fn send(&self, bytes: &[u8]) -> bool {
        let mut chunk = self.empty.try_recv().unwrap_or_default();
        chunk.clear();
        chunk.extend_from_slice(bytes);
        self.filled.send(Ok(chunk)).is_ok()
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.chunk.len() {
            let Ok(chunk) = self.filled.recv() else {
                return Ok(0);
            };
            let used = std::mem::replace(&mut self.chunk, chunk?);
            // At the end the other thread is gone, and the buffer is freed.
            drop(self.spare.try_send(used));
            self.position = 0;
        }
        let read = (&self.chunk[self.position..]).read(buffer)?;
        self.position += read;
        Ok(read)
    }
}

/// The hashing thread: hashes each chunk and passes it on. Ends with the inflating thread.
fn pass_on(mut hasher: Hasher, chunks: &Receiver<Chunk>, hashed: &SyncSender<Chunk>) -> Hasher {
    for chunk in chunks {
        if let Ok(chunk) = &chunk {
            hasher.update(chunk);
        }
        if hashed.send(chunk).is_err() {
            break;
        }
    }
    hasher
}

/// The inflating thread: ends with the blob, with an error, or when the reader is gone.
fn produce(
    mut stored: Stored<impl Read>,
    limit: u64,
    chunks: &SyncSender<Chunk>,
    empty: &Receiver<Vec<u8>>,
) -> (Option<Hasher>, u64) {
    let mut sent = 0;
    let mut send = |decoder: &mut dyn Read| -> io::Result<()> {
        loop {
            let chunk = next_chunk(decoder, empty.try_recv().unwrap_or_default())?;
            sent += chunk.len() as u64;
            if sent > limit {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if chunk.is_empty() || chunks.send(Ok(chunk)).is_err() {
                return Ok(());
            }
        }
    };
    let mut magic = Vec::new();
    let result = (&mut stored)
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut magic);
    let result = result.and_then(|_| {
        // Some tools declare another compression than they use, so the first bytes decide, as in Docker and containerd.
        let encoding = Encoding::of_magic(&magic);
        let whole = Cursor::new(magic).chain(&mut stored);
        let buffered = BufReader::with_capacity(CHUNK_BYTES, whole);
        match encoding {
            Encoding::Plain => send(&mut { buffered }),
            Encoding::Gzip => send(&mut MultiGzDecoder::new(buffered)),
            Encoding::Zstd => zstd_decoder(buffered).and_then(|mut zstd| send(&mut zstd)),
        }
    });
    // Bytes after the compressed stream belong to the blob's digest too. Only the whole blob tells damage from a
    // malformed layer.
    let rest = io::copy(&mut stored, &mut io::sink());
    if let Err(error) = result.and(rest.map(drop)) {
        // Without a reader the error does not matter.
        drop(chunks.send(Err(error)));
    }
    (stored.hasher, stored.bytes)
}

/// Hashes a blob while it is read.
struct Stored<R> {
    blob: R,
    bytes: u64,
    hasher: Option<Hasher>,
}

impl<R: Read> Read for Stored<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read(buffer)?;
        self.bytes += read as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

fn next_chunk(decoder: &mut dyn Read, mut chunk: Vec<u8>) -> io::Result<Vec<u8>> {
    chunk.clear();
    chunk.reserve(CHUNK_BYTES);
    decoder.take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

#[cfg(test)]
mod tests;
