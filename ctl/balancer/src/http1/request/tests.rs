use proptest::prelude::*;

use super::*;
use crate::http1::body::{Incoming, Outgoing};

const LIMITS: HeadLimits = HeadLimits {
    len: 300,
    headers: 5,
};

/// All requests of one connection, as a proxy without IO sees them.
#[derive(Debug, Default)]
struct Requests {
    parser: RequestParser,
    body: Option<Incoming>,
    received: Vec<u8>,
    /// Length of what was accepted: complete heads and parts of bodies.
    accepted: usize,
    /// What is forwarded of the bodies.
    forwarded: Vec<u8>,
    heads: usize,
}

impl Requests {
    fn receive(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.received.extend_from_slice(bytes);
        while self.accepted < self.received.len() {
            let rest = &mut self.received[self.accepted..];
            if let Some(body) = &mut self.body {
                let to = &mut self.forwarded;
                let done = body.transfer(rest, Outgoing::Plain, usize::MAX, to)?;
                self.accepted += done.consumed;
                if body.is_ended() {
                    body.finish(Outgoing::Chunked, to)?;
                    self.body = None;
                }
                continue;
            }
            let Some(len) = self.parser.parse(rest, LIMITS)? else {
                break;
            };
            let body = Incoming::new(self.parser.length(), LIMITS.len, LIMITS.headers);
            self.body = Some(body).filter(|body| !body.is_ended());
            self.accepted += len;
            self.heads += 1;
            self.parser.reset();
        }
        Ok(())
    }
}

/// How much of `bytes` is accepted and what is wrong with the rest, if they arrive in pieces of these lengths.
fn in_pieces(bytes: &[u8], lengths: impl Iterator<Item = usize>) -> (Requests, Option<Malformed>) {
    let (mut requests, mut come) = (Requests::default(), 0);
    for length in lengths.chain([bytes.len()]) {
        let end = bytes.len().min(come + length.max(1));
        if let Err(malformed) = requests.receive(&bytes[come..end]) {
            return (requests, Some(malformed));
        }
        come = end;
    }
    (requests, None)
}

fn at_once(text: &str) -> (usize, Option<Malformed>) {
    let (requests, malformed) = in_pieces(text.as_bytes(), std::iter::empty());
    (requests.accepted, malformed)
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
fn complete_and_incomplete_heads_are_bounded() {
    let head = |len: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(len - 18));
    assert_eq!(at_once(&head(LIMITS.len)), (LIMITS.len, None));
    assert_eq!(at_once(&head(LIMITS.len + 1)).1, Some(Malformed::TooLarge));
    let endless = "x".repeat(LIMITS.len + 1);
    assert_eq!(at_once(&endless).1, Some(Malformed::TooLarge));
    let target = format!("GET /{}", "x".repeat(LIMITS.len));
    assert_eq!(at_once(&target).1, Some(Malformed::TargetTooLong));
    let headers = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a:b\r\n".repeat(count));
    assert_eq!(at_once(&headers(LIMITS.headers)).1, None);
    assert_eq!(
        at_once(&headers(LIMITS.headers + 1)).1,
        Some(Malformed::TooManyHeaders)
    );
}

#[test]
fn trailers_are_header_lines_and_bounded_like_them() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = |trailers: &str| at_once(&format!("{head}0\r\n{trailers}\r\n")).1;
    let chunk = |malformed| Some(Malformed::Chunk(malformed));
    assert_eq!(body("a: b\r\nc:d\r\n"), None);
    for bad in ["a\r\n", ": a\r\n", "a b: c\r\n", "a : b\r\n"] {
        assert_eq!(body(bad), chunk(MalformedChunk::Trailer), "{bad}");
    }
    let many = "a: b\r\n".repeat(LIMITS.headers + 1);
    assert_eq!(body(&many), chunk(MalformedChunk::TooLarge));
    let long = format!("a: {}\r\n", "b".repeat(LIMITS.len));
    assert_eq!(body(&long), chunk(MalformedChunk::TooLarge));
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
        "0\r\nx: y\r\n\r\n",
        "a: b\r\n",
        " ",
        "\0",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_result_does_not_depend_on_how_bytes_are_split(
        text in pieces(),
        lengths in prop::collection::vec(1_usize..20, 0..30),
    ) {
        let whole = in_pieces(text.as_bytes(), std::iter::empty());
        let others = [
            in_pieces(text.as_bytes(), lengths.into_iter()),
            in_pieces(text.as_bytes(), std::iter::repeat_n(1, text.len())),
        ];
        for (requests, malformed) in others {
            prop_assert_eq!(malformed, whole.1);
            prop_assert_eq!(requests.heads, whole.0.heads);
            // How much of a body is accepted before a malformed chunk depends on how the bytes arrive.
            if !matches!(malformed, Some(Malformed::Chunk(_))) {
                prop_assert_eq!(requests.accepted, whole.0.accepted);
                prop_assert_eq!(&requests.forwarded, &whole.0.forwarded);
            }
        }
    }
}
