//! Finds where each request begins and ends, and validates it strictly before the HTTP parser sees it.
//!
//! Lenient parsers that differ from each other can be made to see different requests in the same bytes
//! (request smuggling). This validation rejects everything that makes a message's length ambiguous: a bare
//! line feed, a repeated length, an unknown transfer coding, a malformed chunk. All parsers agree on what
//! remains.
//!
//! ```text
//!          head without body              upgrade request      101
//!   +----------------------------+       +---------> Upgrade ------> Tunnel
//!   v                            |       |              |
//!  Head --------------------- (head complete)           | any other response
//!   ^ ^                          |       |              |
//!   | +------- Sized <-----------+       v              |
//!   |                                 Chunked           |
//!   +------------------------------------+--------------+
//! ```

use hyper::{StatusCode, Uri};

use super::{
    chunks::{Chunks, MalformedChunk},
    edits::{Edit, escape_target},
    fields::{Fields, Length, is_token},
};

/// Follows the messages on one connection.
#[derive(Debug)]
pub struct Framing {
    state: State,
    head_len_max: usize,
    max_headers: usize,
    head: Head,
    /// Number of complete heads so far.
    heads: u64,
}

/// Result of [`Framing::scan`].
#[derive(Debug, PartialEq, Eq)]
pub struct Scan {
    /// Length of the valid prefix. The rest must be passed to the next scan again.
    pub accepted: usize,
    /// What hyper must see instead of some of those bytes, in order.
    pub edits: Vec<Edit>,
    /// Why the bytes after the prefix are invalid.
    pub malformed: Option<Malformed>,
}

/// Bytes that are not a request, or leave its end ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line that does not end in CR LF.
    #[error("a line of the request's head does not end in CR LF")]
    LineEnd,
    /// More than one empty line before the request.
    #[error("there are empty lines before the request")]
    EmptyLines,
    /// The first bytes of a TLS connection.
    #[error("this port speaks plain HTTP, not TLS: use http:// instead of https://")]
    Tls,
    /// Not `METHOD target HTTP/1.x`.
    #[error("the request line is malformed")]
    RequestLine,
    /// Another version than 1.0 and 1.1.
    #[error("only HTTP/1.1 and HTTP/1.0 are supported")]
    Version,
    /// Not `name: value`.
    #[error("a header line is malformed")]
    HeaderLine,
    /// Both lengths, several lengths, or not a number.
    #[error("the request states its length in more than one way, or not as a number")]
    Length,
    /// A transfer coding in HTTP/1.0, several of them, or another one than `chunked`.
    #[error("the only supported transfer coding is chunked, once, in HTTP/1.1")]
    TransferCoding,
    /// The request line alone exceeds the limit of the head.
    #[error("the request's target is too long (--head-bytes)")]
    TargetTooLong,
    /// The head exceeds the limit.
    #[error("the request's head is too large (--head-bytes)")]
    TooLarge,
    /// The number of headers exceeds the limit.
    #[error("the request has too many headers (--max-headers)")]
    TooManyHeaders,
    /// The head did not arrive in time.
    #[error("the request's head did not arrive in time (--head-timeout)")]
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
    /// After an upgrade request: the process decides whether HTTP continues.
    Upgrade,
    Tunnel,
}

/// Progress within an incomplete head.
#[derive(Debug, Default)]
struct Head {
    /// Length of its complete lines, which have been parsed.
    parsed: usize,
    /// How much of the incomplete line has been searched for its end.
    searched: usize,
    has_empty_line: bool,
    is_http_11: Option<bool>,
    headers: usize,
    fields: Fields,
    edits: Vec<Edit>,
}

/// The first byte of a TLS record that holds a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

impl Malformed {
    /// The status to answer with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge | Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether the head has already been accepted.
    pub fn is_in_body(self) -> bool {
        matches!(self, Self::Chunk(_))
    }
}

impl Framing {
    /// For a new connection, with the limits of a head.
    pub fn new(head_len_max: usize, max_headers: usize) -> Self {
        Self {
            state: State::Head,
            head_len_max,
            max_headers,
            head: Head::default(),
            heads: 0,
        }
    }

    /// Validates bytes that follow those accepted before.
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut scan = Scan {
            accepted: 0,
            edits: Vec::new(),
            malformed: None,
        };
        while scan.accepted < bytes.len() {
            match self.step(&bytes[scan.accepted..]) {
                Ok(0) => break,
                Ok(len) => {
                    let edits = std::mem::take(&mut self.head.edits).into_iter();
                    scan.edits
                        .extend(edits.map(|edit| edit.moved(scan.accepted)));
                    scan.accepted += len;
                }
                Err(malformed) => {
                    scan.malformed = Some(malformed);
                    break;
                }
            }
        }
        scan
    }

    /// Whether the next byte belongs to a request's head.
    pub fn is_in_head(&self) -> bool {
        matches!(self.state, State::Head)
    }

    /// Whether the next byte belongs to a request's body.
    pub fn is_in_body(&self) -> bool {
        matches!(self.state, State::Sized(_) | State::Chunked(_))
    }

    /// Whether the protocol was switched.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.state, State::Tunnel)
    }

    /// Number of complete heads so far.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether nothing is accepted until [`Self::continue_http`] or [`Self::tunnel`] is called.
    pub fn awaits_upgrade(&self) -> bool {
        matches!(self.state, State::Upgrade)
    }

    /// HTTP continues after an upgrade request.
    pub fn continue_http(&mut self) {
        self.state = State::Head;
    }

    /// The protocol was switched: all that follows is accepted as it is.
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
            State::Upgrade => Ok(0),
            State::Tunnel => Ok(bytes.len()),
        }
    }

    fn step_head(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let Some((len, length)) = self
            .head
            .parse(bytes, self.head_len_max, self.max_headers)?
        else {
            return Ok(0);
        };
        self.heads += 1;
        self.head = Head {
            edits: std::mem::take(&mut self.head.edits),
            ..Head::default()
        };
        self.state = match length {
            Length::Sized(0) => State::Head,
            Length::Sized(len) => State::Sized(len),
            Length::Chunked => State::Chunked(Chunks::new(self.head_len_max)),
            Length::Upgrade => State::Upgrade,
        };
        Ok(len)
    }
}

impl Head {
    /// Parses line by line, so that the result does not depend on how the bytes arrive. Returns the length of
    /// the head and that of its body, if the head is complete.
    fn parse(
        &mut self,
        bytes: &[u8],
        len_max: usize,
        max_headers: usize,
    ) -> Result<Option<(usize, Length)>, Malformed> {
        loop {
            let rest = &bytes[self.parsed..];
            self.check_method(rest)?;
            let end = rest[self.searched..].iter().position(|byte| *byte == b'\n');
            let line_len = end.map_or(rest.len(), |end| self.searched + end + 1);
            if self.parsed + line_len > len_max {
                return Err(self.too_large(&rest[..len_max.saturating_sub(self.parsed)]));
            }
            if end.is_none() {
                self.searched = rest.len();
                return Ok(None);
            }
            let line = rest[..line_len - 1].strip_suffix(b"\r");
            if let Some(length) = self.line(line.ok_or(Malformed::LineEnd)?, max_headers)? {
                return Ok(Some((self.parsed + line_len, length)));
            }
            self.parsed += line_len;
            self.searched = 0;
        }
    }

    /// Refuses what cannot become a request without waiting for the end of the line.
    fn check_method(&self, line: &[u8]) -> Result<(), Malformed> {
        if self.is_http_11.is_some() {
            return Ok(());
        }
        if line.first() == Some(&TLS_HANDSHAKE) {
            return Err(Malformed::Tls);
        }
        let mut method = line.iter().take_while(|byte| !b" \r\n".contains(byte));
        match method.all(is_token) {
            true => Ok(()),
            false => Err(Malformed::RequestLine),
        }
    }

    fn too_large(&self, line: &[u8]) -> Malformed {
        match self.is_http_11 {
            None if line.contains(&b' ') => Malformed::TargetTooLong,
            _ => Malformed::TooLarge,
        }
    }

    /// Takes one line without its end. Returns the body's length after the last one.
    fn line(&mut self, line: &[u8], max_headers: usize) -> Result<Option<Length>, Malformed> {
        let Some(is_http_11) = self.is_http_11 else {
            return self.first_line(line).map(|()| None);
        };
        if line.is_empty() {
            return self.fields.length(is_http_11).map(Some);
        }
        if self.headers == max_headers {
            return Err(Malformed::TooManyHeaders);
        }
        self.headers += 1;
        let edit = self.fields.add(line)?;
        self.edits.extend(edit.map(|edit| edit.moved(self.parsed)));
        Ok(None)
    }

    fn first_line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        if line.is_empty() {
            // One empty line before a request is ignored (RFC 9112, section 2.2).
            return match std::mem::replace(&mut self.has_empty_line, true) {
                false => Ok(()),
                true => Err(Malformed::EmptyLines),
            };
        }
        let (is_http_11, edit) = request_line(line)?;
        self.edits.extend(edit.map(|edit| edit.moved(self.parsed)));
        self.is_http_11 = Some(is_http_11);
        Ok(())
    }
}

/// Whether the version is 1.1, and what hyper must see instead of the target.
fn request_line(line: &[u8]) -> Result<(bool, Option<Edit>), Malformed> {
    let mut words = line.split(|byte| *byte == b' ');
    let mut word = || words.next().filter(|word| !word.is_empty());
    let (Some(method), Some(target), Some(version), None) = (word(), word(), word(), word()) else {
        return Err(Malformed::RequestLine);
    };
    if !method.iter().all(is_token) || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Malformed::RequestLine);
    }
    let escaped = escape_target(target);
    if !is_target(escaped.as_deref().unwrap_or(target)) {
        return Err(Malformed::RequestLine);
    }
    let edit = escaped.map(|with| Edit::new(method.len() + 1, target.len(), with));
    match version {
        b"HTTP/1.1" => Ok((true, edit)),
        b"HTTP/1.0" => Ok((false, edit)),
        other if other.starts_with(b"HTTP/") => Err(Malformed::Version),
        _ => Err(Malformed::RequestLine),
    }
}

/// Accepts what hyper can parse, so that the client gets a reason otherwise, and no fragment, which hyper
/// would cut off (RFC 9112, section 3.2).
fn is_target(target: &[u8]) -> bool {
    !target.contains(&b'#') && Uri::try_from(target).is_ok()
}

#[cfg(test)]
mod tests;
