//! Where a body ends, and its bytes as the other side receives them.

use super::{
    chunks::{Chunks, MalformedChunk, Piece},
    fields::{Line, Sender, write_hex},
};

/// The length of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// No body, and nothing said about it.
    None,
    /// So many bytes.
    Sized(u64),
    /// Chunks.
    Chunked,
    /// All until the connection's end; only of responses.
    UntilClose,
}

/// How far a body has been received.
#[derive(Debug)]
pub enum Incoming {
    /// So many bytes are left.
    Sized(u64),
    /// Within chunks.
    Chunked(Box<Chunks>),
    /// Until the connection's end.
    UntilClose,
}

/// How a body is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing {
    /// As it is: by its length, or until the connection's end.
    Plain,
    /// In chunks.
    Chunked,
}

/// A step of [`Incoming::transfer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// So many bytes were consumed.
    pub consumed: usize,
    /// So many of them were data.
    pub data: usize,
}

impl Incoming {
    /// Of a body of this length. Chunks' extensions and trailers may take `extras_max` bytes, and `headers_max` lines.
    pub fn new(length: Length, extras_max: usize, headers_max: usize) -> Self {
        match length {
            Length::None => Self::Sized(0),
            Length::Sized(len) => Self::Sized(len),
            Length::Chunked => Self::Chunked(Box::new(Chunks::new(extras_max, headers_max))),
            Length::UntilClose => Self::UntilClose,
        }
    }

    /// Whether it is complete.
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Sized(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_ended(),
            Self::UntilClose => false,
        }
    }

    /// How many of `available` bytes can be passed on as they are. `None` if they have to be transferred.
    pub fn passable(&self, available: usize, outgoing: Outgoing) -> Option<usize> {
        match (self, outgoing) {
            (Self::Sized(left), Outgoing::Plain) => {
                Some(usize::try_from(*left).map_or(available, |left| left.min(available)))
            }
            (Self::UntilClose, Outgoing::Plain) => Some(available),
            _ => None,
        }
    }

    /// So many bytes were passed on.
    pub fn passed(&mut self, len: usize) {
        if let Self::Sized(left) = self {
            *left = left.saturating_sub(len as u64);
        }
    }

    /// Appends what the other side is to receive of `bytes` to `to`: at most about `len_max` bytes of data.
    ///
    /// # Errors
    /// The chunks are malformed.
    pub fn transfer(
        &mut self,
        bytes: &[u8],
        outgoing: Outgoing,
        len_max: usize,
        to: &mut Vec<u8>,
    ) -> Result<Transfer, MalformedChunk> {
        let mut done = Transfer {
            consumed: 0,
            data: 0,
        };
        while done.consumed < bytes.len() && done.data < len_max && !self.is_ended() {
            let rest = &bytes[done.consumed..];
            let (consumed, data) = match self {
                Self::Chunked(chunks) => match chunks.next(rest)? {
                    Piece::Framing(len) => (len, 0..0),
                    Piece::Data(len) => (len, 0..len),
                },
                _ => {
                    let len = self.passable(rest.len(), Outgoing::Plain);
                    let len = len.unwrap_or_default();
                    self.passed(len);
                    (len, 0..len)
                }
            };
            done.data += data.len();
            write_data(&rest[data], outgoing, to);
            done.consumed += consumed;
        }
        Ok(done)
    }

    /// Appends the end of the body, with its trailers.
    ///
    /// # Errors
    /// A trailer is malformed.
    pub fn finish(&mut self, outgoing: Outgoing, to: &mut Vec<u8>) -> Result<(), MalformedChunk> {
        let trailers = match self {
            Self::Chunked(chunks) => chunks.take_trailers(),
            _ => Vec::new(),
        };
        if outgoing == Outgoing::Chunked {
            to.extend_from_slice(b"0\r\n");
            write_trailers(trailers, to)?;
            to.extend_from_slice(b"\r\n");
        }
        Ok(())
    }
}

fn write_data(data: &[u8], outgoing: Outgoing, to: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    if outgoing == Outgoing::Plain {
        to.extend_from_slice(data);
        return;
    }
    write_hex(to, data.len() as u64);
    for part in [b"\r\n", data, b"\r\n"] {
        to.extend_from_slice(part);
    }
}

/// The lines have been checked while they came.
fn write_trailers(mut lines: Vec<u8>, to: &mut Vec<u8>) -> Result<(), MalformedChunk> {
    let mut start = 0;
    while start < lines.len() {
        let line = Line::parse(&mut lines, start, Sender::Client);
        let Ok(Line::Field(field, next)) = line else {
            return Err(MalformedChunk::Trailer);
        };
        if field.is_safe_trailer() {
            field.write(&lines, to);
        }
        start = next;
    }
    Ok(())
}
