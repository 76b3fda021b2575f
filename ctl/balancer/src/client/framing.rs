//! Where each request begins and ends in a client's bytes, judged strictly before the HTTP parser sees them.
//!
//! Parsers forgive; two that forgive differently can be made to see different requests in the same bytes
//! (request smuggling). Here nothing is forgiven that leaves a doubt about a message's length: a bare line
//! feed, a length stated twice, an unknown transfer coding, a malformed chunk. What passes is read the same
//! way by every parser.
//!
//! ```text
//!          head without body                       101 or not
//!   +----------------------------+       +--------- Verdict ---> Tunnel
//!   v                            |       |             |
//!  Head --------------------- (head complete)          |
//!   ^ ^                          |       |             |
//!   | +------- Sized <-----------+       v             |
//!   |                                 Chunked          |
//!   +------------------------------------+-------------+
//! ```

use hyper::StatusCode;

use super::chunks::{Chunks, MalformedChunk};

/// Follows the messages on one connection.
#[derive(Debug)]
pub struct Framing {
    state: State,
    head_len_max: usize,
    max_headers: usize,
    /// How much of the incomplete head has been searched for its end.
    searched: usize,
}

/// What [`Framing::scan`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Scan {
    /// This many bytes from the beginning may be passed on; the rest is to be shown again with what follows.
    pub cleared: usize,
    /// What is wrong with the bytes after those.
    pub malformed: Option<Malformed>,
}

/// Bytes that are no request, or leave a doubt about where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line that does not end in CR LF.
    #[error("a line of the request's head does not end in CR LF")]
    LineEnd,
    /// More than one empty line before the request.
    #[error("there are empty lines before the request")]
    EmptyLines,
    /// Not `METHOD target HTTP/1.x`.
    #[error("the request line is malformed")]
    RequestLine,
    /// Another version than 1.0 and 1.1.
    #[error("only HTTP/1.1 and HTTP/1.0 are spoken here")]
    Version,
    /// Not `name: value`.
    #[error("a header line is malformed")]
    HeaderLine,
    /// Both lengths, several lengths, or one that is no number.
    #[error("the request states its length in more than one way, or not as a number")]
    Length,
    /// A transfer coding in HTTP/1.0, several headers, or something else than `chunked`.
    #[error("the only transfer coding that is taken is chunked, once, in HTTP/1.1")]
    TransferCoding,
    /// A head over the limit.
    #[error("the request's head is too large")]
    TooLarge,
    /// More headers than the limit.
    #[error("the request has too many headers")]
    TooManyHeaders,
    /// The head took too long.
    #[error("the request's head did not arrive in time")]
    TooSlow,
    /// The body's chunks are malformed.
    #[error("{0}")]
    Chunk(#[from] MalformedChunk),
}

#[derive(Debug)]
enum State {
    Head,
    Sized(u64),
    Chunked(Chunks),
    /// After a request for another protocol: whether HTTP goes on is for the process to say.
    Verdict,
    Tunnel,
}

impl Malformed {
    /// The status to answer with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TooLarge | Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether it was found after the request's head had been passed on.
    pub fn is_in_body(self) -> bool {
        matches!(self, Self::Chunk(_))
    }
}

impl Framing {
    /// For a new connection, with the bounds of a head.
    pub fn new(head_len_max: usize, max_headers: usize) -> Self {
        Self {
            state: State::Head,
            head_len_max,
            max_headers,
            searched: 0,
        }
    }

    /// Looks at bytes that follow those cleared before.
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut cleared = 0;
        while cleared < bytes.len() {
            match self.step(&bytes[cleared..]) {
                Ok(0) => break,
                Ok(len) => cleared += len,
                Err(malformed) => {
                    return Scan {
                        cleared,
                        malformed: Some(malformed),
                    };
                }
            }
        }
        Scan {
            cleared,
            malformed: None,
        }
    }

    /// Whether the next byte belongs to a request's head.
    pub fn is_in_head(&self) -> bool {
        matches!(self.state, State::Head)
    }

    /// Whether nothing is cleared until [`Self::go_on`] or [`Self::tunnel`].
    pub fn awaits_verdict(&self) -> bool {
        matches!(self.state, State::Verdict)
    }

    /// HTTP goes on after a request for another protocol.
    pub fn go_on(&mut self) {
        self.state = State::Head;
    }

    /// The protocol was changed: all that follows is passed on unseen.
    pub fn tunnel(&mut self) {
        self.state = State::Tunnel;
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match &mut self.state {
            State::Head => self.step_head(bytes),
            State::Sized(left) => {
                let len = usize::try_from(*left).map_or(bytes.len(), |l| l.min(bytes.len()));
                *left -= len as u64;
                if *left == 0 {
                    self.state = State::Head;
                }
                Ok(len)
            }
            State::Chunked(chunks) => {
                let len = chunks.scan(bytes)?;
                if chunks.is_ended() {
                    self.state = State::Head;
                }
                Ok(len)
            }
            State::Verdict => Ok(0),
            State::Tunnel => Ok(bytes.len()),
        }
    }

    fn step_head(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let Some(end) = self.head_end(bytes)? else {
            self.searched = bytes.len();
            return Ok(0);
        };
        self.searched = 0;
        let head = &bytes[leading_line(bytes)..end];
        let limits = (self.max_headers, self.head_len_max);
        self.state = match Length::of(head, limits.0)? {
            Length::Sized(0) => State::Head,
            Length::Sized(len) => State::Sized(len),
            Length::Chunked => State::Chunked(Chunks::new(limits.1)),
            Length::Upgrade => State::Verdict,
        };
        Ok(end)
    }

    /// Length of the head with its empty line, once that is there.
    fn head_end(&self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let start = leading_line(bytes);
        if start == 2 && bytes[2..].starts_with(b"\r\n") {
            return Err(Malformed::EmptyLines);
        }
        for (index, _) in line_feeds(bytes, self.searched.max(start)) {
            if index == 0 || bytes[index - 1] != b'\r' {
                return Err(Malformed::LineEnd);
            }
            if index >= start + 3 && bytes[index - 3] == b'\r' && bytes[index - 2] == b'\n' {
                return match index < self.head_len_max {
                    true => Ok(Some(index + 1)),
                    false => Err(Malformed::TooLarge),
                };
            }
        }
        match bytes.len() > self.head_len_max {
            true => Err(Malformed::TooLarge),
            false => Ok(None),
        }
    }
}

/// One empty line before a request is to be ignored (RFC 9112, section 2.2).
fn leading_line(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\r\n") { 2 } else { 0 }
}

fn line_feeds(bytes: &[u8], from: usize) -> impl Iterator<Item = (usize, u8)> {
    let from = from.min(bytes.len());
    bytes[from..]
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(move |(index, byte)| (from + index, *byte))
}

/// How long a request's body is.
enum Length {
    Sized(u64),
    Chunked,
    /// There is none, and the client wants to change the protocol.
    Upgrade,
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Length {
    /// Reads a complete head.
    fn of(head: &[u8], max_headers: usize) -> Result<Self, Malformed> {
        let mut lines = lines(head);
        let is_http_11 = request_line(lines.next().unwrap_or_default())?;
        let mut fields = Fields::default();
        for (count, line) in lines.enumerate() {
            if count == max_headers {
                return Err(Malformed::TooManyHeaders);
            }
            fields.add(line)?;
        }
        fields.length(is_http_11)
    }
}

impl Fields {
    fn add(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(Malformed::HeaderLine)?);
        let value = value[1..].trim_ascii();
        if name.is_empty() || !name.iter().all(is_token) || !value.iter().all(is_text) {
            return Err(Malformed::HeaderLine);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value).ok_or(Malformed::Length)?;
            match self.length.replace(length) {
                None => {}
                Some(_) => return Err(Malformed::Length),
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::TransferCoding);
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        Ok(())
    }

    fn length(&self, is_http_11: bool) -> Result<Length, Malformed> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Malformed::Length),
            (true, None) if !is_http_11 => Err(Malformed::TransferCoding),
            (true, None) => Ok(Length::Chunked),
            (false, Some(len)) if len > 0 => Ok(Length::Sized(len)),
            (false, _) if self.upgrade && is_http_11 => Ok(Length::Upgrade),
            (false, _) => Ok(Length::Sized(0)),
        }
    }
}

/// The lines of a head whose every line feed follows a carriage return, without the empty one at its end.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
}

/// Whether the version is 1.1.
fn request_line(line: &[u8]) -> Result<bool, Malformed> {
    let mut words = line.split(|byte| *byte == b' ');
    let mut word = || words.next().filter(|word| !word.is_empty());
    let (Some(method), Some(target), Some(version), None) = (word(), word(), word(), word()) else {
        return Err(Malformed::RequestLine);
    };
    if !method.iter().all(is_token) || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Malformed::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        other if other.starts_with(b"HTTP/") => Err(Malformed::Version),
        _ => Err(Malformed::RequestLine),
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// What a header's value may hold (RFC 9110, section 5.5).
fn is_text(byte: &u8) -> bool {
    *byte == b'\t' || !byte.is_ascii_control()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    // 18 digits cannot overflow, and no sign or space gets through.
    let is_number = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let value = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
    is_number.then(|| digits.iter().fold(0, value))
}
