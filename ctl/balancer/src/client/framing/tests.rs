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
