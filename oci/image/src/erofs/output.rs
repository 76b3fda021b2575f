//! The file in the making: written from its beginning to its end, in large pieces, with its checksum.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use flate2::Crc;

use super::format::{BLOCK_BYTES, HEAD_BYTES};
use crate::seal::FileSeal;

const BUFFER_BYTES: usize = 1 << 20;
/// Less free space than this in the buffer, and it is written out.
const LOW_BYTES: usize = 64 << 10;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A file that grows.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    buffer: Vec<u8>,
    /// Bytes in the buffer.
    filled: usize,
    /// Bytes before those in the buffer.
    written: u64,
    crc: Crc,
}

impl Output {
    /// Of an empty file; the head is left free.
    pub(super) fn new(mut file: File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(HEAD_BYTES as u64))?;
        Ok(Self {
            file,
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
            written: HEAD_BYTES as u64,
            crc: Crc::new(),
        })
    }

    /// Where the next byte goes.
    pub(super) fn position(&self) -> u64 {
        self.written + self.filled as u64
    }

    /// The number of the block that the next byte begins, after [`Output::fill_block`].
    pub(super) fn block(&self) -> io::Result<u32> {
        let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
        u32::try_from(self.position() / BLOCK_BYTES).map_err(|_| too_large())
    }

    /// A place to put the next bytes into, of which [`Output::advance`] tells then.
    pub(super) fn room(&mut self) -> io::Result<&mut [u8]> {
        if BUFFER_BYTES - self.filled < LOW_BYTES {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    /// So many bytes were put into the room.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.filled = (self.filled + bytes).min(BUFFER_BYTES);
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.room()?.write(bytes)?;
            self.advance(written);
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Leaves a hole in the file.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.flush()?;
        let mut left = bytes;
        while left > 0 {
            let piece = left.min(ZEROS.len() as u64);
            self.crc.update(&ZEROS[..piece as usize]);
            left -= piece;
        }
        self.written += bytes;
        self.file.seek(SeekFrom::Start(self.written)).map(drop)
    }

    /// Goes on to the beginning of a block.
    pub(super) fn fill_block(&mut self) -> io::Result<()> {
        let rest = self.position().next_multiple_of(BLOCK_BYTES) - self.position();
        self.put(&ZEROS[..rest as usize])
    }

    /// Writes the head, and the end; what a reader can check the file by.
    pub(super) fn finish(mut self, head: &[u8; HEAD_BYTES]) -> io::Result<FileSeal> {
        self.fill_block()?;
        self.flush()?;
        self.file.write_all_at(head, 0)?;
        // It may end with a hole.
        self.file.set_len(self.written)?;
        let mut crc = Crc::new();
        crc.update(head);
        Ok(FileSeal {
            bytes: self.written,
            head_crc: crc.sum(),
            rest_crc: self.crc.sum(),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = &self.buffer[..self.filled];
        self.crc.update(bytes);
        self.file.write_all(bytes)?;
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}
