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

/// Result of [`Framing::scan`].
#[derive(Debug, PartialEq, Eq)]
pub struct Scan {
    /// Length of the valid prefix. The rest must be passed to the next scan again.
    pub accepted: usize,
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
    /// The head exceeds the limit.
    #[error("the request's head is too large")]
    TooLarge,
    /// The number of headers exceeds the limit.
    #[error("the request has too many headers")]
    TooManyHeaders,
    /// The head did not arrive in time.
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
    /// After an upgrade request: the process decides whether HTTP continues.
    Upgrade,
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
            searched: 0,
        }
    }

    /// Validates bytes that follow those accepted before.
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut accepted = 0;
        while accepted < bytes.len() {
            match self.step(&bytes[accepted..]) {
                Ok(0) => break,
                Ok(len) => accepted += len,
                Err(malformed) => {
                    return Scan {
                        accepted,
                        malformed: Some(malformed),
                    };
                }
            }
        }
        Scan {
            accepted,
            malformed: None,
        }
    }

    /// Whether the next byte belongs to a request's head.
    pub fn is_in_head(&self) -> bool {
        matches!(self.state, State::Head)
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
            Length::Upgrade => State::Upgrade,
        };
        Ok(end)
    }

    /// Length of the head with its empty line, if it is complete.
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

/// One empty line before a request is ignored (RFC 9112, section 2.2).
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

/// The length of a request's body.
enum Length {
    Sized(u64),
    Chunked,
    /// No body; the client wants to switch protocols.
    Upgrade,
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Length {
    /// Parses a complete head.
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

/// The lines of a head in which every line feed follows a carriage return, without the final empty line.
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
    if !method.iter().all(is_token) || !is_target(target) {
        return Err(Malformed::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        other if other.starts_with(b"HTTP/") => Err(Malformed::Version),
        _ => Err(Malformed::RequestLine),
    }
}

/// Accepts what hyper can parse, so that the client gets a reason otherwise, and no fragment, which hyper
/// would cut off (RFC 9112, section 3.2).
fn is_target(target: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
    target.iter().all(is_plain) && Uri::try_from(target).is_ok()
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// RFC 9110, section 5.5.
fn is_text(byte: &u8) -> bool {
    *byte == b'\t' || !byte.is_ascii_control()
}

/// A length in bytes: digits and nothing else.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    // 18 digits cannot overflow, and no sign or space gets through.
    let is_number = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let value = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
    is_number.then(|| digits.iter().fold(0, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD_LEN_MAX: usize = 300;
    const MAX_HEADERS: usize = 5;

    fn framing() -> Framing {
        Framing::new(HEAD_LEN_MAX, MAX_HEADERS)
    }

    /// How much of `bytes` is accepted and what is wrong with the rest, if they arrive in pieces of these lengths.
    fn scan_read(bytes: &[u8], lengths: impl Iterator<Item = usize>) -> (usize, Option<Malformed>) {
        let (mut framing, mut accepted, mut come) = (framing(), 0, 0);
        for length in lengths.chain([bytes.len()]) {
            come = bytes.len().min(come + length.max(1));
            let scan = framing.scan(&bytes[accepted..come]);
            accepted += scan.accepted;
            if scan.malformed.is_some() || come == bytes.len() {
                return (accepted, scan.malformed);
            }
        }
        (accepted, None)
    }

    fn at_once(text: &str) -> (usize, Option<Malformed>) {
        scan_read(text.as_bytes(), std::iter::empty())
    }

    #[test]
    fn complete_requests_are_accepted_and_an_incomplete_head_is_not() {
        let whole = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
        let text = format!("{whole}GET /next HTTP/1.1\r\n");
        assert_eq!(at_once(&text), (whole.len(), None));
    }

    #[test]
    fn a_body_is_accepted_as_it_arrives() {
        let text = "POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nbegin";
        assert_eq!(at_once(text), (text.len(), None));
        let text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1E\r\nbegin";
        assert_eq!(at_once(text), (text.len(), None));
    }

    #[test]
    fn a_malformed_request_after_a_valid_one_is_found() {
        let good = "GET / HTTP/1.1\r\n\r\n";
        let text = format!("{good}GET / HTTP/1.1\n\n{good}");
        assert_eq!(at_once(&text), (good.len(), Some(Malformed::LineEnd)));
    }

    #[test]
    fn nothing_is_accepted_after_an_upgrade_request_before_its_outcome() {
        let head = "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n";
        let text = format!("{head}\0not http");
        let bytes = text.as_bytes();
        for is_tunnel in [true, false] {
            let mut framing = framing();
            assert_eq!(framing.scan(bytes).accepted, head.len());
            assert!(framing.awaits_upgrade());
            let rest = &bytes[head.len()..];
            assert_eq!(framing.scan(rest).accepted, 0);
            if is_tunnel {
                framing.tunnel();
                assert_eq!(framing.scan(rest).accepted, rest.len());
            } else {
                framing.continue_http();
                assert_eq!(
                    framing.scan(b"\0\r\n\r\n").malformed,
                    Some(Malformed::RequestLine)
                );
            }
        }
    }

    #[test]
    fn an_upgrade_in_http_1_0_or_with_a_body_is_ignored() {
        for text in [
            "GET / HTTP/1.0\r\nUpgrade: x\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\na",
        ] {
            let mut framing = framing();
            framing.scan(text.as_bytes());
            assert!(framing.is_in_head(), "{text}");
        }
    }

    #[test]
    fn complete_and_incomplete_heads_are_bounded() {
        let head = |len: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(len - 18));
        assert_eq!(at_once(&head(HEAD_LEN_MAX)), (HEAD_LEN_MAX, None));
        assert_eq!(
            at_once(&head(HEAD_LEN_MAX + 1)).1,
            Some(Malformed::TooLarge)
        );
        let endless = "x".repeat(HEAD_LEN_MAX + 1);
        assert_eq!(at_once(&endless).1, Some(Malformed::TooLarge));
        let headers = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a:b\r\n".repeat(count));
        assert_eq!(at_once(&headers(MAX_HEADERS)).1, None);
        assert_eq!(
            at_once(&headers(MAX_HEADERS + 1)).1,
            Some(Malformed::TooManyHeaders)
        );
    }

    #[test]
    fn lengths_are_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(
            decimal(b"999999999999999999"),
            Some(999_999_999_999_999_999)
        );
        for bad in [
            "",
            "1000000000000000000",
            "-1",
            "+1",
            "1 1",
            "0x1",
            "1.",
            "\u{661}",
        ] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }

    /// Fragments of valid and malformed requests.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "GET / HTTP/1.1\r\n",
            "POST /x?y HTTP/1.1\r\n",
            "GET / HTTP/1.0\r\n",
            "Content-Length: 3\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Upgrade: x\r\n",
            "Host: a\r\n",
            "\r\n",
            "\n",
            "\r",
            "abc",
            "3\r\nabc\r\n",
            "3;x=y\r\nabc\r\n",
            "0\r\n\r\n",
            "a: b\r\n",
            " ",
            "\0",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// How much of a body is accepted before a malformed chunk depends on how the bytes arrive.
    fn comparable((accepted, malformed): (usize, Option<Malformed>)) -> (usize, Option<Malformed>) {
        match malformed {
            Some(Malformed::Chunk(_)) => (0, malformed),
            _ => (accepted, malformed),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_result_does_not_depend_on_how_bytes_are_split(
            text in pieces(),
            lengths in prop::collection::vec(1_usize..20, 0..30),
        ) {
            let whole = comparable(at_once(&text));
            let in_pieces = scan_read(text.as_bytes(), lengths.into_iter());
            prop_assert_eq!(comparable(in_pieces), whole);
            let by_bytes = scan_read(text.as_bytes(), std::iter::repeat(1));
            prop_assert_eq!(comparable(by_bytes), whole);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let scan = framing().scan(&bytes);
            prop_assert!(scan.accepted <= bytes.len());
        }
    }
}
