//! The parser beside two others, on mutated requests: what it accepts they read alike, and what it forwards is read by
//! hyper's server as exactly these requests.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http_body_util::BodyExt;
use hyper::{
    Request, Response, body::Incoming as HyperBody, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::{
    body::{Incoming, Outgoing},
    edit::RequestEdit,
    options::Options,
    request::{HeadLimits, RequestParser},
};
use crate::core::target::Target;

const LIMITS: HeadLimits = HeadLimits {
    len: 8 * 1024,
    headers: 50,
};

/// A request as some parser has read it: method, target, body.
type Seen = (String, String, Vec<u8>);

/// Requests of all kinds, which are mutated.
const SEEDS: [&str; 9] = [
    "GET /a?b=c HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nCookie: x=y; z=\"1\"\r\n\r\n",
    "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
    "HEAD http://a.test:80/x HTTP/1.1\r\nHost: b.test\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
    "PUT /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5;x=\"y\"\r\nfghij\r\n0\r\n\r\n",
    "POST /t HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nX-Empty:\r\nX-Tab:\t v \r\n\r\n",
    "DELETE /q HTTP/1.1\r\nHost: a.test\r\nContent-Length: 47\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\nx: yz\r\n\r\n",
    "\r\nGET /chat HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
];

/// What attacks on framing are made of.
const SHARDS: [&str; 24] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    "\x0b",
    ":",
    ",",
    ";",
    "0",
    "5",
    "ff",
    "+1",
    "0x",
    "chunked",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Content-Length: 0, 5\r\n",
    "\r\n ",
    "0\r\n\r\n",
    "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "\u{e9}",
];

#[derive(Debug, Clone)]
enum Mutation {
    Insert(usize, usize),
    Remove(usize, usize),
    Replace(usize, u8),
    Double(usize, usize),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let at = any::<prop::sample::Index>().prop_map(|index| index.index(1 << 16));
    let one = prop_oneof![
        3 => (at.clone(), 0..SHARDS.len()).prop_map(|(at, shard)| Mutation::Insert(at, shard)),
        1 => (at.clone(), 1_usize..8).prop_map(|(at, len)| Mutation::Remove(at, len)),
        1 => (at.clone(), any::<u8>()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        1 => (at, 1_usize..40).prop_map(|(at, len)| Mutation::Double(at, len)),
    ];
    prop::collection::vec(one, 0..4)
}

/// Some requests, one after the other, mutated.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let seeds = prop::collection::vec(prop::sample::select(SEEDS.to_vec()), 1..4);
    (seeds, mutations()).prop_map(|(seeds, mutations)| {
        let mut bytes = seeds.concat().into_bytes();
        for mutation in mutations {
            mutate(&mut bytes, &mutation);
        }
        bytes
    })
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let len = bytes.len();
    if len == 0 {
        return;
    }
    let range = |at: usize, count: usize| at % len..(at % len + count).min(len);
    match *mutation {
        Mutation::Insert(at, shard) => {
            bytes.splice(at % len..at % len, SHARDS[shard].bytes());
        }
        Mutation::Remove(at, count) => {
            bytes.drain(range(at, count));
        }
        Mutation::Replace(at, byte) => bytes[at % len] = byte,
        Mutation::Double(at, count) => {
            let part = bytes[range(at, count)].to_vec();
            bytes.splice(at % len..at % len, part);
        }
    }
}

/// What a process receives of these bytes, and what it should see in them. Ends with the first request that is refused or
/// incomplete.
fn forwarded(bytes: &[u8]) -> (Vec<u8>, Vec<Seen>) {
    let (mut out, mut seen) = (Vec::new(), Vec::new());
    let mut bytes = bytes.to_vec();
    let mut rest = bytes.as_mut_slice();
    let (mut parser, mut options) = (RequestParser::default(), Options::default());
    while let Ok(Some(len)) = parser.parse(rest, LIMITS) {
        let (head, after) = rest.split_at_mut(len);
        let Ok(target) = Target::of(head, &parser) else {
            break;
        };
        if options.read(head, parser.fields()).is_err() {
            break;
        }
        let edit = RequestEdit {
            head,
            parser: &parser,
            options: &options,
            target: &target,
            client: b"127.0.0.1",
            trust: false,
            upgrade: None,
            expects_continue: false,
        };
        let mut message = Vec::new();
        let written = edit.write(&mut message);
        let method = parser.line().method.of(head).to_vec();
        let uri = written.target.of(&message).to_vec();
        let Some((consumed, body)) = transfer(&parser, after, &mut message) else {
            break;
        };
        out.extend(message);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        seen.push((text(method), text(uri), body));
        rest = &mut after[consumed..];
        parser.reset();
    }
    (out, seen)
}

/// Forwards the body behind a head. Returns how long it was, and its data; none if it is malformed or incomplete.
fn transfer(parser: &RequestParser, bytes: &[u8], to: &mut Vec<u8>) -> Option<(usize, Vec<u8>)> {
    let length = parser.length();
    let mut body = Incoming::new(length, LIMITS.len, LIMITS.headers);
    let outgoing = match body {
        Incoming::Chunked(_) => Outgoing::Chunked,
        _ => Outgoing::Plain,
    };
    let consumed = body
        .transfer(bytes, outgoing, usize::MAX, to)
        .ok()?
        .consumed;
    if !body.is_ended() {
        return None;
    }
    body.finish(outgoing, to).ok()?;
    let mut again = Incoming::new(length, LIMITS.len, LIMITS.headers);
    let mut data = Vec::new();
    again
        .transfer(bytes, Outgoing::Plain, usize::MAX, &mut data)
        .ok()?;
    Some((consumed, data))
}

/// What hyper's server sees in these bytes.
async fn seen_by_hyper(bytes: Vec<u8>) -> Vec<Seen> {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let all = seen.clone();
    let service = service_fn(move |request: Request<HyperBody>| {
        let all = all.clone();
        async move {
            let (method, uri) = (request.method().to_string(), request.uri().to_string());
            if let Ok(body) = request.into_body().collect().await {
                let body = body.to_bytes().to_vec();
                all.lock().unwrap().push((method, uri, body));
            }
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let (mut client, server) = tokio::io::duplex(1 << 20);
    client.write_all(&bytes).await.unwrap();
    client.shutdown().await.unwrap();
    // Malformed requests end the connection: what was seen before counts.
    let mut builder = http1::Builder::new();
    builder.half_close(true).max_headers(200);
    builder
        .serve_connection(TokioIo::new(server), service)
        .await
        .ok();
    let seen = seen.lock().unwrap();
    seen.clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn what_is_accepted_is_read_alike_by_httparse(stream in streams()) {
        let mut bytes = stream.clone();
        let mut parser = RequestParser::default();
        if let Ok(Some(len)) = parser.parse(&mut bytes, LIMITS) {
            let mut headers = [httparse::EMPTY_HEADER; 60];
            let mut other = httparse::Request::new(&mut headers);
            let parsed = other.parse(&stream);
            prop_assert_eq!(parsed, Ok(httparse::Status::Complete(len)));
            let line = parser.line();
            prop_assert_eq!(other.method.unwrap().as_bytes(), line.method.of(&bytes));
            prop_assert_eq!(other.path.unwrap().as_bytes(), line.target.of(&bytes));
            prop_assert_eq!(other.version, Some(u8::from(line.is_http_11)));
            prop_assert_eq!(other.headers.len(), parser.fields().len());
            for (header, field) in other.headers.iter().zip(parser.fields()) {
                prop_assert!(header.name.as_bytes().eq_ignore_ascii_case(field.name.of(&bytes)));
                prop_assert_eq!(header.value, field.value.of(&bytes));
            }
        }
    }

    #[test]
    fn what_is_forwarded_is_read_alike_by_hyper(stream in streams()) {
        let (out, expected) = forwarded(&stream);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // hyper's type of targets refuses some bytes that other servers take.
        let is_odd = |(_, uri, _): &Seen| uri.bytes().any(|byte| b"\"<>`\\^{}|".contains(&byte));
        prop_assume!(!expected.iter().any(is_odd));
        let seen = runtime.block_on(seen_by_hyper(out.clone()));
        prop_assert_eq!(seen, expected, "{}", String::from_utf8_lossy(&out));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut request = bytes.clone();
        if let Ok(Some(len)) = RequestParser::default().parse(&mut request, LIMITS) {
            prop_assert!(len <= bytes.len());
        }
        let mut response = bytes.clone();
        let mut parser = super::response::ResponseParser::default();
        if let Ok(Some(len)) = parser.parse(&mut response, LIMITS) {
            prop_assert!(len <= bytes.len());
        }
    }
}

#[test]
fn all_seeds_are_forwarded() {
    let stream = SEEDS.concat();
    let (out, expected) = forwarded(stream.as_bytes());
    assert_eq!(expected.len(), SEEDS.len());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    assert_eq!(runtime.block_on(seen_by_hyper(out)), expected);
}
