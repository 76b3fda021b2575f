//! Writes the image's file sequentially in large pieces, and computes its checksum. Blocks of zeros become holes.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use flate2::Crc;

use super::format::{BLOCK_BYTES, HEAD_BYTES};
use crate::{
    seal::FileSeal,
    zeros::{HOLE_BYTES, is_zero, runs},
};

const BUFFER_BYTES: usize = 1 << 20;
/// The buffer is written when less than this is free.
const LOW_BYTES: usize = 64 << 10;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The growing file.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    buffer: Vec<u8>,
    /// Bytes in the buffer.
    filled: usize,
    /// Bytes before the buffer's.
    written: u64,
    crc: Crc,
}

impl Output {
    /// Starts an empty file after its head.
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

    /// The offset of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.written + self.filled as u64
    }

    /// The block number of the next byte, which must be the first of its block: see [`Output::fill_block`].
    pub(super) fn block(&self) -> io::Result<u32> {
        let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
        u32::try_from(self.position() / BLOCK_BYTES).map_err(|_| too_large())
    }

    /// Free space of the buffer, to be filled and then committed by [`Output::advance`].
    pub(super) fn room(&mut self) -> io::Result<&mut [u8]> {
        if BUFFER_BYTES - self.filled < LOW_BYTES {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    /// Commits so many bytes of the free space.
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

    /// Pads to the beginning of a block.
    pub(super) fn fill_block(&mut self) -> io::Result<()> {
        let rest = self.position().next_multiple_of(BLOCK_BYTES) - self.position();
        self.put(&ZEROS[..rest as usize])
    }

    /// Writes the head and finishes the file; returns its checksums.
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
        for run in runs(bytes) {
            match is_zero(&run[..run.len().min(HOLE_BYTES)]) {
                true => drop(self.file.seek(SeekFrom::Current(run.len() as i64))?),
                false => self.file.write_all(run)?,
            }
        }
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}
