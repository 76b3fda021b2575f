//! Parser of a chunked body (RFC 9112, section 7.1), byte by byte outside of data.

use super::fields::{Line, Sender};

/// The position within a chunked body.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    size: u64,
    /// Number of size digits so far.
    digits: u8,
    /// Bytes left for extensions and trailers.
    extras_left: usize,
    /// Trailer lines left.
    lines_left: usize,
    /// Complete trailer lines, with their ends, and the beginning of the next one.
    trailers: Vec<u8>,
    line_start: usize,
}

/// A part of a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of sizes, extensions and trailers.
    Framing(usize),
    /// So many bytes of data.
    Data(usize),
}

/// Chunks that two parsers could read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedChunk {
    /// Not a hexadecimal number, or too large.
    #[error("a chunk's size is malformed")]
    Size,
    /// A line that does not end in CR LF or contains control characters.
    #[error("a chunk does not end in CR LF")]
    LineEnd,
    /// A trailer that is not `name: value`.
    #[error("a trailer is malformed")]
    Trailer,
    /// Extensions and trailers exceed the limit.
    #[error("the chunks' extensions and trailers are too large (--head-bytes, --max-headers)")]
    TooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a trailer line or of the final empty line.
    Line,
    Trailer,
    TrailerLf,
    LastLf,
    End,
}

/// A longer size could overflow.
const SIZE_DIGITS_MAX: u8 = 15;

impl Chunks {
    /// At the beginning of a body. All extensions and trailers together may take `extras_max` bytes, and the trailers
    /// `lines_max` lines.
    pub fn new(extras_max: usize, lines_max: usize) -> Self {
        Self {
            state: State::Size,
            size: 0,
            digits: 0,
            extras_left: extras_max,
            lines_left: lines_max,
            trailers: Vec::new(),
            line_start: 0,
        }
    }

    /// Whether the body is complete.
    pub fn is_ended(&self) -> bool {
        self.state == State::End
    }

    /// The next piece of `bytes`, which are not empty. The body must not be complete.
    ///
    /// # Errors
    /// The chunks are malformed.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, MalformedChunk> {
        if self.state == State::Data {
            return Ok(Piece::Data(self.take_data(bytes.len())));
        }
        let mut index = 0;
        while index < bytes.len() && !matches!(self.state, State::Data | State::End) {
            self.state = self.step(bytes[index])?;
            index += 1;
        }
        Ok(Piece::Framing(index))
    }

    /// The trailer lines of the complete body, with their ends.
    pub fn take_trailers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.trailers)
    }

    fn take_data(&mut self, available: usize) -> usize {
        let len = usize::try_from(self.size).map_or(available, |size| size.min(available));
        self.size -= len as u64;
        if self.size == 0 {
            self.state = State::DataCr;
        }
        len
    }

    fn step(&mut self, byte: u8) -> Result<State, MalformedChunk> {
        match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Size, b';') if self.digits > 0 => self.extra(State::Extension),
            (State::Size, digit) => self.digit(digit),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::SizeLf, b'\n') => Ok(self.begin_chunk()),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::Line, b'\r') => Ok(State::LastLf),
            (State::LastLf, b'\n') => Ok(State::End),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::TrailerLf, b'\n') => self.end_trailer(),
            (State::Extension, byte) if is_text(byte) => self.extra(State::Extension),
            (State::Line, b' ' | b'\t') => Err(MalformedChunk::LineEnd),
            (State::Line | State::Trailer, byte) if is_text(byte) => {
                self.trailers.push(byte);
                self.extra(State::Trailer)
            }
            _ => Err(MalformedChunk::LineEnd),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<State, MalformedChunk> {
        let digit = char::from(byte).to_digit(16);
        let digit = digit.filter(|_| self.digits < SIZE_DIGITS_MAX);
        self.size = self.size * 16 + u64::from(digit.ok_or(MalformedChunk::Size)?);
        self.digits += 1;
        Ok(State::Size)
    }

    fn begin_chunk(&mut self) -> State {
        self.digits = 0;
        if self.size == 0 {
            State::Line
        } else {
            State::Data
        }
    }

    fn end_trailer(&mut self) -> Result<State, MalformedChunk> {
        let left = self.lines_left.checked_sub(1);
        self.lines_left = left.ok_or(MalformedChunk::TooLarge)?;
        self.trailers.extend_from_slice(b"\r\n");
        let line = Line::parse(&mut self.trailers, self.line_start, Sender::Client);
        let Ok(Line::Field(_, next)) = line else {
            return Err(MalformedChunk::Trailer);
        };
        self.line_start = next;
        Ok(State::Line)
    }

    fn extra(&mut self, next: State) -> Result<State, MalformedChunk> {
        let left = self.extras_left.checked_sub(1);
        self.extras_left = left.ok_or(MalformedChunk::TooLarge)?;
        Ok(next)
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}
