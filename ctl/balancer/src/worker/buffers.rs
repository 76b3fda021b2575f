//! Buffers of one thread: bounded, reused, and held only while there is something in them.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Size of a buffer: most heads and small bodies fit.
pub const BUFFER_LEN: usize = 32 * 1024;

/// What a buffer grows to while a large body passes quickly. More costs memory for each client that does not read; much less
/// costs system calls.
pub const BULK_LEN: usize = 256 * 1024;

/// Buffers that are kept for reuse.
const BUFFERS_MAX: usize = 64;
/// Grown ones.
const BULK_MAX: usize = 4;
/// Texts that are kept for reuse, and their largest size.
const TEXTS_MAX: usize = 256;
const TEXT_LEN_MAX: usize = 8 * 1024;

/// Memory for reuse.
#[derive(Debug, Default)]
pub struct Buffers {
    /// All bytes of these are initialised.
    free: RefCell<Vec<Vec<u8>>>,
    bulk: RefCell<Vec<Vec<u8>>>,
    texts: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty text to be written to, such as a head.
    pub fn text(&self) -> Vec<u8> {
        self.texts.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a text back.
    pub fn reuse_text(&self, mut text: Vec<u8>) {
        let mut texts = self.texts.borrow_mut();
        if (1..=TEXT_LEN_MAX).contains(&text.capacity()) && texts.len() < TEXTS_MAX {
            text.clear();
            texts.push(text);
        }
    }

    fn take(&self) -> Vec<u8> {
        let free = self.free.borrow_mut().pop();
        free.unwrap_or_else(|| vec![0; BUFFER_LEN])
    }

    fn give(&self, buffer: Vec<u8>) {
        let (pool, max) = match buffer.len() {
            BUFFER_LEN => (&self.free, BUFFERS_MAX),
            BULK_LEN => (&self.bulk, BULK_MAX),
            _ => return,
        };
        let mut pool = pool.borrow_mut();
        if pool.len() < max {
            pool.push(buffer);
        }
    }

    fn take_bulk(&self) -> Vec<u8> {
        let bulk = self.bulk.borrow_mut().pop();
        bulk.unwrap_or_else(|| vec![0; BULK_LEN])
    }
}

/// Bytes that have arrived on one connection and have not been consumed.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Empty while nothing is buffered.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The last read has filled the buffer.
    was_filled: bool,
}

impl Inbox {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The bytes, to be edited in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Removes the first `len` bytes.
    pub fn consume(&mut self, len: usize) {
        self.start += len.min(self.len());
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Appends what `reader` has, up to `len_max` bytes in all; there must be room for more. Returns how many bytes were
    /// added: none at the end.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
        buffers: &Buffers,
        len_max: usize,
    ) -> Poll<io::Result<usize>> {
        self.make_room(buffers, len_max);
        let room = &mut self.buffer[self.end..];
        let room_len = room.len();
        let mut room = ReadBuf::new(room);
        let read = Pin::new(reader).poll_read(cx, &mut room);
        let len = room.filled().len();
        self.end += len;
        self.was_filled = len == room_len;
        if len == 0 {
            self.release(buffers);
        }
        read.map_ok(|()| len)
    }

    /// Gives the memory back if there is nothing in it.
    pub fn release(&mut self, buffers: &Buffers) {
        if self.is_empty() && !self.buffer.is_empty() {
            buffers.give(std::mem::take(&mut self.buffer));
            (self.start, self.end) = (0, 0);
        }
    }

    /// Grows the empty buffer if the last read has filled it: the sender is fast.
    pub fn grow(&mut self, buffers: &Buffers) {
        if self.was_filled && self.is_empty() && self.buffer.len() == BUFFER_LEN {
            buffers.give(std::mem::replace(&mut self.buffer, buffers.take_bulk()));
        }
    }

    fn make_room(&mut self, buffers: &Buffers, len_max: usize) {
        if self.buffer.is_empty() {
            self.buffer = buffers.take();
        }
        if self.end < self.buffer.len() {
            return;
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        } else {
            let len = (self.buffer.len() * 2).min(len_max).max(self.end + 1);
            self.buffer.resize(len, 0);
        }
    }
}
