//! The head of a request, parsed line by line as it arrives.

use super::{
    body::Length,
    chunks::MalformedChunk,
    fields::{BadLine, Field, Kind, Line, Sender, Span, decimal, is_token},
};

/// Parses one head after another.
#[derive(Debug, Default)]
pub struct RequestParser {
    /// Length of the complete lines, which have been parsed.
    parsed: usize,
    /// How much of the incomplete line has been searched for its end.
    searched: usize,
    has_empty_line: bool,
    has_line: bool,
    line: RequestLine,
    fields: Vec<Field>,
    content_length: Option<u64>,
    is_chunked: bool,
}

/// The first line.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestLine {
    /// The method, a token.
    pub method: Span,
    /// The target: visible ASCII without `#`.
    pub target: Span,
    /// Whether the version is 1.1, not 1.0.
    pub is_http_11: bool,
}

/// What a head may be at most.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Its length.
    pub len: usize,
    /// Its number of header lines.
    pub headers: usize,
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

/// The first byte of a TLS record that holds a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

impl Malformed {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::TargetTooLong => 414,
            Self::TooLarge | Self::TooManyHeaders => 431,
            Self::TooSlow => 408,
            _ => 400,
        }
    }
}

impl RequestParser {
    /// Parses `bytes`, which begin as those of the last call and may have become more, until a head is complete: then its
    /// length is returned. Names of headers are put in lower case. The result does not depend on how the bytes arrive.
    ///
    /// # Errors
    /// The bytes cannot become a request.
    pub fn parse(
        &mut self,
        bytes: &mut [u8],
        limits: HeadLimits,
    ) -> Result<Option<usize>, Malformed> {
        let available = bytes.len();
        let bytes = &mut bytes[..available.min(limits.len)];
        let is_complete = self.parse_lines(bytes, limits.headers)?;
        match is_complete {
            true => Ok(Some(self.parsed)),
            false if available > limits.len => Err(self.too_large(bytes)),
            false => Ok(None),
        }
    }

    /// Forgets the last head.
    pub fn reset(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    /// The first line of the complete head.
    pub fn line(&self) -> RequestLine {
        self.line
    }

    /// Its header lines, in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The length of the body.
    pub fn length(&self) -> Length {
        match (self.is_chunked, self.content_length) {
            (true, _) => Length::Chunked,
            (false, None) => Length::None,
            (false, Some(len)) => Length::Sized(len),
        }
    }

    /// Refuses what cannot become a request without waiting for the end of the line.
    fn check_method(&self, line: &[u8]) -> Result<(), Malformed> {
        if line.first() == Some(&TLS_HANDSHAKE) {
            return Err(Malformed::Tls);
        }
        let mut method = line.iter().take_while(|byte| !b" \r\n".contains(byte));
        match method.all(|byte| is_token(*byte)) {
            true => Ok(()),
            false => Err(Malformed::RequestLine),
        }
    }

    fn too_large(&self, bytes: &[u8]) -> Malformed {
        match self.has_line {
            false if bytes[self.parsed..].contains(&b' ') => Malformed::TargetTooLong,
            _ => Malformed::TooLarge,
        }
    }

    /// Takes complete lines. Returns whether the head is complete.
    fn parse_lines(&mut self, bytes: &mut [u8], max_headers: usize) -> Result<bool, Malformed> {
        while !self.has_line {
            if !self.take_first_line(bytes)? {
                return Ok(false);
            }
        }
        loop {
            match Line::parse(bytes, self.parsed, Sender::Client)? {
                Line::Incomplete => return Ok(false),
                Line::Empty(end) => {
                    self.parsed = end;
                    return self.check_length().map(|()| true);
                }
                Line::Field(..) if self.fields.len() == max_headers => {
                    return Err(Malformed::TooManyHeaders);
                }
                Line::Field(field, next) => {
                    self.note_framing(field, bytes)?;
                    self.fields.push(field);
                    self.parsed = next;
                }
            }
        }
    }

    /// Takes the request line, or the empty line before it. Returns whether it was complete.
    fn take_first_line(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        let start = self.parsed;
        self.check_method(&bytes[start..])?;
        let rest = &bytes[start + self.searched..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            self.searched += rest.len();
            return Ok(false);
        };
        let end = start + self.searched + end;
        if end == start || bytes[end - 1] != b'\r' {
            return Err(Malformed::LineEnd);
        }
        self.first_line(&bytes[start..end - 1], start)?;
        (self.parsed, self.searched) = (end + 1, 0);
        Ok(true)
    }

    fn first_line(&mut self, line: &[u8], start: usize) -> Result<(), Malformed> {
        if line.is_empty() {
            // One empty line before a request is ignored (RFC 9112, section 2.2).
            return match std::mem::replace(&mut self.has_empty_line, true) {
                false => Ok(()),
                true => Err(Malformed::EmptyLines),
            };
        }
        self.line = RequestLine::parse(line, start)?;
        self.has_line = true;
        Ok(())
    }

    fn note_framing(&mut self, field: Field, head: &[u8]) -> Result<(), Malformed> {
        let value = field.value.of(head);
        match field.kind {
            Kind::ContentLength => {
                let length = decimal(value).ok_or(Malformed::Length)?;
                match self.content_length.replace(length) {
                    None => Ok(()),
                    Some(_) => Err(Malformed::Length),
                }
            }
            Kind::TransferEncoding
                if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") =>
            {
                Err(Malformed::TransferCoding)
            }
            Kind::TransferEncoding => {
                self.is_chunked = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_length(&self) -> Result<(), Malformed> {
        match (self.is_chunked, self.content_length) {
            (true, Some(_)) => Err(Malformed::Length),
            (true, None) if !self.line.is_http_11 => Err(Malformed::TransferCoding),
            _ => Ok(()),
        }
    }
}

impl From<BadLine> for Malformed {
    fn from(bad: BadLine) -> Self {
        match bad {
            BadLine::End => Self::LineEnd,
            BadLine::Content => Self::HeaderLine,
        }
    }
}

impl RequestLine {
    /// Takes the line that begins at `start` of the head.
    fn parse(line: &[u8], start: usize) -> Result<Self, Malformed> {
        let method = line.iter().position(|byte| !is_token(*byte));
        let method = method.filter(|len| *len > 0 && line[*len] == b' ');
        let method = method.ok_or(Malformed::RequestLine)?;
        let rest = &line[method + 1..];
        let target = memchr::memchr(b' ', rest).filter(|len| *len > 0);
        let target = target.ok_or(Malformed::RequestLine)?;
        if !is_target(&rest[..target]) {
            return Err(Malformed::RequestLine);
        }
        let is_http_11 = match &rest[target + 1..] {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            version if version.contains(&b' ') => return Err(Malformed::RequestLine),
            version if version.starts_with(b"HTTP/") => return Err(Malformed::Version),
            _ => return Err(Malformed::RequestLine),
        };
        let target_start = start + method + 1;
        Ok(Self {
            method: Span::new(start, start + method),
            target: Span::new(target_start, target_start + target),
            is_http_11,
        })
    }
}

/// Visible ASCII without `#`: a fragment is not part of a request (RFC 9112, section 3.2).
fn is_target(target: &[u8]) -> bool {
    let is_bad = |byte: u8| !byte.is_ascii_graphic() | (byte == b'#');
    !target.iter().fold(false, |any, byte| any | is_bad(*byte))
}

#[cfg(test)]
mod tests;
