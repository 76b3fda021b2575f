//! The head of a response. Processes are not as hostile as clients, and some are old: a line may end in LF alone, and blanks
//! may come before a colon. Neither is forwarded.

use super::{
    body::Length,
    fields::{BadLine, Field, Kind, Line, Sender, Span, decimal},
    options::{BadConnection, Options, list},
    request::HeadLimits,
};

/// Parses the head of one response.
#[derive(Debug, Default)]
pub struct ResponseParser {
    parsed: usize,
    searched: usize,
    status: Option<StatusLine>,
    fields: Vec<Field>,
    content_length: Option<u64>,
    is_chunked: bool,
    options: Options,
}

/// The first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusLine {
    /// From 100 to 999.
    pub status: u16,
    /// The words after it.
    pub reason: Span,
    /// Whether the version is 1.1, not 1.0.
    pub is_http_11: bool,
}

/// A response that cannot be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadResponse {
    /// It is not valid HTTP, or not safe to forward.
    Invalid,
    /// Its head exceeds a limit.
    TooLarge,
}

impl From<BadConnection> for BadResponse {
    fn from(_: BadConnection) -> Self {
        Self::Invalid
    }
}

impl From<BadLine> for BadResponse {
    fn from(_: BadLine) -> Self {
        Self::Invalid
    }
}

impl ResponseParser {
    /// Parses `bytes`, which begin as those of the last call and may have become more, until a head is complete: then its
    /// length is returned.
    ///
    /// # Errors
    /// The bytes are no response, or one that cannot be forwarded.
    pub fn parse(
        &mut self,
        bytes: &mut [u8],
        limits: HeadLimits,
    ) -> Result<Option<usize>, BadResponse> {
        let available = bytes.len();
        let bytes = &mut bytes[..available.min(limits.len)];
        match self.parse_lines(bytes, limits.headers)? {
            true => {
                self.options.read(bytes, &self.fields)?;
                Ok(Some(self.parsed))
            }
            false if available > limits.len => Err(BadResponse::TooLarge),
            false => Ok(None),
        }
    }

    /// Forgets the last head.
    pub fn reset(&mut self) {
        self.fields.clear();
        (self.parsed, self.searched, self.status) = (0, 0, None);
        (self.content_length, self.is_chunked) = (None, false);
    }

    /// The first line of the complete head.
    pub fn line(&self) -> StatusLine {
        self.status.unwrap_or(StatusLine {
            status: 502,
            reason: Span::default(),
            is_http_11: true,
        })
    }

    /// Its header lines, in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// What it says about its connection.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The length of the body (RFC 9112, section 6.3), of a response to a request that was HEAD or not.
    pub fn length(&self, answers_head: bool) -> Length {
        match (self.line().status, self.content_length) {
            (100..=199 | 204 | 304, _) => Length::None,
            _ if answers_head => Length::None,
            (_, Some(length)) => Length::Sized(length),
            (_, None) if self.is_chunked => Length::Chunked,
            (_, None) => Length::UntilClose,
        }
    }

    /// The length that is stated, be there a body or not.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// The first value of a header.
    pub fn value<'a>(&'a self, head: &'a [u8], kind: Kind) -> Option<&'a [u8]> {
        let field = self.fields.iter().find(|field| field.kind == kind);
        field.map(|field| field.value.of(head))
    }

    /// Takes complete lines. Returns whether the head is complete.
    fn parse_lines(&mut self, bytes: &mut [u8], max_headers: usize) -> Result<bool, BadResponse> {
        while self.status.is_none() {
            if !self.take_status_line(bytes)? {
                return Ok(false);
            }
        }
        loop {
            match Line::parse(bytes, self.parsed, Sender::Process)? {
                Line::Incomplete => return Ok(false),
                Line::Empty(end) => {
                    self.parsed = end;
                    return self.check_length().map(|()| true);
                }
                Line::Field(..) if self.fields.len() == max_headers => {
                    return Err(BadResponse::TooLarge);
                }
                Line::Field(field, next) => {
                    match field.kind {
                        Kind::ContentLength => self.note_length(field.value.of(bytes))?,
                        Kind::TransferEncoding => self.note_coding(field.value.of(bytes))?,
                        _ => {}
                    }
                    self.fields.push(field);
                    self.parsed = next;
                }
            }
        }
    }

    /// Takes the status line, or an empty one before it; all of those together are bounded like a head. Returns whether it
    /// was complete.
    fn take_status_line(&mut self, bytes: &[u8]) -> Result<bool, BadResponse> {
        let start = self.parsed;
        let rest = &bytes[start + self.searched..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            self.searched += rest.len();
            return Ok(false);
        };
        let end = start + self.searched + end;
        let line = &bytes[start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            self.status = Some(StatusLine::parse(line, start)?);
        }
        (self.parsed, self.searched) = (end + 1, 0);
        Ok(true)
    }

    /// A length may be stated repeatedly, if it is the same.
    fn note_length(&mut self, value: &[u8]) -> Result<(), BadResponse> {
        for number in list(value) {
            let number = decimal(number).ok_or(BadResponse::Invalid)?;
            let other = self.content_length.replace(number);
            if other.is_some_and(|other| other != number) {
                return Err(BadResponse::Invalid);
            }
        }
        Ok(())
    }

    fn note_coding(&mut self, value: &[u8]) -> Result<(), BadResponse> {
        let was_chunked = std::mem::replace(&mut self.is_chunked, true);
        match !was_chunked && value.eq_ignore_ascii_case(b"chunked") {
            true => Ok(()),
            false => Err(BadResponse::Invalid),
        }
    }

    fn check_length(&self) -> Result<(), BadResponse> {
        let is_ambiguous = self.content_length.is_some() || !self.line().is_http_11;
        match self.is_chunked && is_ambiguous {
            true => Err(BadResponse::Invalid),
            false => Ok(()),
        }
    }
}

impl StatusLine {
    /// Takes the line that begins at `start` of the head: `HTTP/1.1 200 OK`, with or without a reason.
    fn parse(line: &[u8], start: usize) -> Result<Self, BadResponse> {
        const STATUS_END: usize = b"HTTP/1.1 200".len();
        let is_http_11 = match line.get(..9) {
            Some(b"HTTP/1.1 ") => true,
            Some(b"HTTP/1.0 ") => false,
            _ => return Err(BadResponse::Invalid),
        };
        let digits = line.get(9..STATUS_END).and_then(decimal);
        let status = digits.filter(|status| *status >= 100);
        let status = status.and_then(|status| u16::try_from(status).ok());
        let reason = match line.get(STATUS_END) {
            None => &[],
            Some(b' ') => &line[STATUS_END + 1..],
            Some(_) => return Err(BadResponse::Invalid),
        };
        if !super::fields::is_text(reason) {
            return Err(BadResponse::Invalid);
        }
        let end = start + line.len();
        Ok(Self {
            status: status.ok_or(BadResponse::Invalid)?,
            reason: Span::new(end - reason.len(), end),
            is_http_11,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        len: 200,
        headers: 5,
    };

    fn parse(text: &str) -> Result<(StatusLine, Length), BadResponse> {
        let mut head = text.as_bytes().to_vec();
        let mut parser = ResponseParser::default();
        let mut parsed = None;
        // Byte by byte and at once are the same.
        for end in 1..=head.len() {
            parsed = parser.parse(&mut head[..end], LIMITS)?;
        }
        let mut whole = text.as_bytes().to_vec();
        let mut at_once = ResponseParser::default();
        assert_eq!(at_once.parse(&mut whole, LIMITS), Ok(parsed));
        assert_eq!(parsed, Some(text.len()));
        assert_eq!(at_once.line(), parser.line());
        Ok((parser.line(), parser.length(false)))
    }

    #[test]
    fn heads_of_old_servers_are_accepted() {
        for (text, length) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
                Length::Sized(3),
            ),
            ("HTTP/1.1 200 OK\nContent-Length: 3\n\n", Length::Sized(3)),
            (
                "\r\nHTTP/1.0 200\r\nContent-Length: 3, 3\r\n\r\n",
                Length::Sized(3),
            ),
            (
                "HTTP/1.1 200 \r\nContent-Length : 3\r\n\r\n",
                Length::Sized(3),
            ),
            (
                "HTTP/1.1 999 é\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Length::Chunked,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Length::UntilClose),
            ("HTTP/1.1 304 \r\nContent-Length: 3\r\n\r\n", Length::None),
        ] {
            assert_eq!(
                parse(text).map(|(_, length)| length),
                Ok(length),
                "{text:?}"
            );
        }
    }

    #[test]
    fn ambiguous_and_malformed_heads_are_refused() {
        for text in [
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 +20 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 O\rK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx\r\n\r\n",
            "HTTP/1.1 200 OK\r\n x: y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: y\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 1\r\n\r\n",
        ] {
            assert_eq!(parse(text), Err(BadResponse::Invalid), "{text:?}");
        }
    }

    #[test]
    fn heads_are_bounded() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(6));
        let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(200));
        let empty = "\r\n".repeat(101);
        for text in [many, long, empty] {
            assert_eq!(parse(&text), Err(BadResponse::TooLarge), "{text:?}");
        }
    }
}
