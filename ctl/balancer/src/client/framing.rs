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

/// What hyper will parse, so that the client hears the reason if it cannot, and without a fragment, which
/// it would cut off (RFC 9112, section 3.2).
fn is_target(target: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
    target.iter().all(is_plain) && Uri::try_from(target).is_ok()
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// What a header's value may hold (RFC 9110, section 5.5).
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

    /// What is cleared of `bytes`, and what is wrong with the rest, when they come in pieces of these lengths.
    fn judge(bytes: &[u8], lengths: impl Iterator<Item = usize>) -> (usize, Option<Malformed>) {
        let (mut framing, mut cleared, mut come) = (framing(), 0, 0);
        for length in lengths.chain([bytes.len()]) {
            come = bytes.len().min(come + length.max(1));
            let scan = framing.scan(&bytes[cleared..come]);
            cleared += scan.cleared;
            if scan.malformed.is_some() || come == bytes.len() {
                return (cleared, scan.malformed);
            }
        }
        (cleared, None)
    }

    fn at_once(text: &str) -> (usize, Option<Malformed>) {
        judge(text.as_bytes(), std::iter::empty())
    }

    #[test]
    fn whole_requests_pass_and_the_beginning_of_the_next_is_held() {
        let whole = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
        let text = format!("{whole}GET /next HTTP/1.1\r\n");
        assert_eq!(at_once(&text), (whole.len(), None));
    }

    #[test]
    fn a_body_passes_as_it_comes() {
        let text = "POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nbegin";
        assert_eq!(at_once(text), (text.len(), None));
        let text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1E\r\nbegin";
        assert_eq!(at_once(text), (text.len(), None));
    }

    #[test]
    fn what_is_wrong_is_found_behind_what_is_right() {
        let good = "GET / HTTP/1.1\r\n\r\n";
        let text = format!("{good}GET / HTTP/1.1\n\n{good}");
        assert_eq!(at_once(&text), (good.len(), Some(Malformed::LineEnd)));
    }

    #[test]
    fn nothing_passes_after_an_upgrade_before_the_verdict() {
        let head = "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n";
        let text = format!("{head}\0not http");
        let bytes = text.as_bytes();
        for is_tunnel in [true, false] {
            let mut framing = framing();
            assert_eq!(framing.scan(bytes).cleared, head.len());
            assert!(framing.awaits_verdict());
            let rest = &bytes[head.len()..];
            assert_eq!(framing.scan(rest).cleared, 0);
            if is_tunnel {
                framing.tunnel();
                assert_eq!(framing.scan(rest).cleared, rest.len());
            } else {
                framing.go_on();
                assert_eq!(
                    framing.scan(b"\0\r\n\r\n").malformed,
                    Some(Malformed::RequestLine)
                );
            }
        }
    }

    #[test]
    fn an_upgrade_in_http_1_0_or_with_a_body_is_none() {
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
    fn heads_are_bounded_complete_or_not() {
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

    /// Pieces that requests, good and bad, are made of.
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

    /// How much passes of a body before its malformed chunk depends on what came with that.
    fn comparable((cleared, malformed): (usize, Option<Malformed>)) -> (usize, Option<Malformed>) {
        match malformed {
            Some(Malformed::Chunk(_)) => (0, malformed),
            _ => (cleared, malformed),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_judgement_does_not_depend_on_how_bytes_are_cut(
            text in pieces(),
            lengths in prop::collection::vec(1_usize..20, 0..30),
        ) {
            let whole = comparable(at_once(&text));
            let in_pieces = judge(text.as_bytes(), lengths.into_iter());
            prop_assert_eq!(comparable(in_pieces), whole);
            let by_bytes = judge(text.as_bytes(), std::iter::repeat(1));
            prop_assert_eq!(comparable(by_bytes), whole);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let scan = framing().scan(&bytes);
            prop_assert!(scan.cleared <= bytes.len());
        }
    }
}
