use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use crate::support::{Client, Origin, TestBed, hello};

/// Malformed and ambiguous requests. The request that follows each must not reach the process either.
const BAD: &[(&str, &str, u16)] = &[
    (
        "both lengths",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        400,
    ),
    (
        "both lengths, the other way",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
        400,
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        400,
    ),
    (
        "one length twice",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        400,
    ),
    (
        "a list of lengths",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 1, 1\r\n\r\na",
        400,
    ),
    (
        "a signed length",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: +1\r\n\r\na",
        400,
    ),
    (
        "a negative length",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: -1\r\n\r\na",
        400,
    ),
    (
        "a hexadecimal length",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 0x1\r\n\r\na",
        400,
    ),
    (
        "an empty length",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: \r\n\r\na",
        400,
    ),
    (
        "a huge length",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 18446744073709551617\r\n\r\na",
        400,
    ),
    (
        "two codings",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "an unknown coding",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "a quoted coding",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked with a vertical tab",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "identity",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\na",
        400,
    ),
    (
        "chunked in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "a space before the colon",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length : 1\r\n\r\na",
        400,
    ),
    (
        "a tab before the colon",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "a folded header",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "a header that begins with a space",
        "GET / HTTP/1.1\r\n Host: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "a header without colon",
        "GET / HTTP/1.1\r\nHost: hello.localhost\r\nx\r\n\r\n",
        400,
    ),
    (
        "a header without name",
        "GET / HTTP/1.1\r\nHost: hello.localhost\r\n: x\r\n\r\n",
        400,
    ),
    (
        "a zero byte in a value",
        "GET / HTTP/1.1\r\nHost: hello.localhost\r\nx: a\0b\r\n\r\n",
        400,
    ),
    (
        "a zero byte in a name",
        "GET / HTTP/1.1\r\nHost: hello.localhost\r\nx\0: a\r\n\r\n",
        400,
    ),
    (
        "a carriage return in a value",
        "GET / HTTP/1.1\r\nHost: hello.localhost\r\nx: a\rContent-Length: 1\r\n\r\n",
        400,
    ),
    (
        "bare line feeds",
        "GET / HTTP/1.1\nHost: hello.localhost\n\n",
        400,
    ),
    (
        "one bare line feed",
        "GET / HTTP/1.1\r\nx: a\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "an end with bare line feeds",
        "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\n",
        400,
    ),
    (
        "empty lines first",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "a bare line feed first",
        "\nGET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "a host with two final dots",
        "GET / HTTP/1.1\r\nHost: hello.localhost..\r\n\r\n",
        400,
    ),
    (
        "a host with an empty label",
        "GET / HTTP/1.1\r\nHost: hello..localhost\r\n\r\n",
        400,
    ),
    ("no host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 400),
    ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
    (
        "no host, although absolute",
        "GET http://hello.localhost/ HTTP/1.1\r\n\r\n",
        400,
    ),
    (
        "two hosts",
        "GET / HTTP/1.1\r\nHost: hello.localhost\r\nHost: other.localhost\r\n\r\n",
        400,
    ),
    (
        "one host twice",
        "GET / HTTP/1.1\r\nHost: hello.localhost\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    ("an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    (
        "a host with a user",
        "GET / HTTP/1.1\r\nHost: me@hello.localhost\r\n\r\n",
        400,
    ),
    (
        "a host with a path",
        "GET / HTTP/1.1\r\nHost: hello.localhost/x\r\n\r\n",
        400,
    ),
    (
        "a host with a wrong port",
        "GET / HTTP/1.1\r\nHost: hello.localhost:http\r\n\r\n",
        400,
    ),
    (
        "a list of hosts",
        "GET / HTTP/1.1\r\nHost: hello.localhost, x\r\n\r\n",
        400,
    ),
    (
        "a target of another scheme",
        "GET ftp://hello.localhost/ HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "a target without slash",
        "GET hello HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "an asterisk without OPTIONS",
        "GET * HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "a target with a control character",
        "GET /\x01 HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "a target with a bare byte over 127",
        "GET /é HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "a fragment",
        "GET /a#b HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "two spaces",
        "GET  / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "a tab for a space",
        "GET\t/ HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "four words",
        "GET / / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    ("two words", "GET /\r\nHost: hello.localhost\r\n\r\n", 400),
    (
        "a method that is no token",
        "GE(T / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "another protocol",
        "GET / ICY/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    (
        "another version",
        "GET / HTTP/1.2\r\nHost: hello.localhost\r\n\r\n",
        505,
    ),
    (
        "another major version",
        "GET / HTTP/3.0\r\nHost: hello.localhost\r\n\r\n",
        505,
    ),
    (
        "the preface of HTTP/2",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        505,
    ),
    (
        "a version in lower case",
        "GET / http/1.1\r\nHost: hello.localhost\r\n\r\n",
        400,
    ),
    ("TLS", "\x16\x03\x01\x00\x05hello\r\n\r\n", 400),
    (
        "CONNECT",
        "CONNECT hello.localhost:80 HTTP/1.1\r\nHost: hello.localhost:80\r\n\r\n",
        405,
    ),
    (
        "Connection names Host",
        "GET / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: host\r\n\r\n",
        400,
    ),
    (
        "Connection names Content-Length",
        "POST / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: content-length\r\nContent-Length: 1\r\n\r\na",
        400,
    ),
    (
        "Connection is no list of names",
        "GET / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: a b\r\n\r\n",
        400,
    ),
];

/// Chunked bodies that two parsers could read differently.
const BAD_CHUNKS: &[(&str, &str)] = &[
    ("no size", "\r\nabc\r\n0\r\n\r\n"),
    ("a prefixed size", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("a signed size", "+3\r\nabc\r\n0\r\n\r\n"),
    ("a size after a space", " 3\r\nabc\r\n0\r\n\r\n"),
    ("a size before a space", "3 \r\nabc\r\n0\r\n\r\n"),
    (
        "a size that overflows",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
    ),
    ("a bare line feed after the size", "3\nabc\r\n0\r\n\r\n"),
    ("a bare line feed in an extension", "3;a\nabc\r\n0\r\n\r\n"),
    ("a bare line feed after the data", "3\r\nabc\n0\r\n\r\n"),
    ("more data than said", "3\r\nabcd\r\n0\r\n\r\n"),
    ("a bare carriage return", "3\rXabc\r\n0\r\n\r\n"),
    ("a zero byte in an extension", "3;a\0\r\nabc\r\n0\r\n\r\n"),
    ("a bare line feed at the end", "3\r\nabc\r\n0\r\n\n"),
    (
        "a bare line feed after a trailer",
        "3\r\nabc\r\n0\r\nx: y\n\r\n",
    ),
    ("a folded trailer", "3\r\nabc\r\n0\r\nx: y\r\n z\r\n\r\n"),
];

const SECOND: &str = "GET /second HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";

#[tokio::test]
async fn malformed_requests_never_reach_a_process() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    for (name, request, status) in BAD {
        let mut client = Client::connect(bed.address).await;
        client.send([request, SECOND].concat()).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, *status, "{name}: {}", reply.body);
        assert_eq!(reply.header("connection"), Some("close"), "{name}");
        assert_eq!(reply.body.lines().count(), 1, "{name}: {}", reply.body);
        assert_eq!(client.rest().await, b"", "{name}: nothing follows");
        assert_eq!(origin.seen(), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_byte_by_byte_too() {
    let origin = Origin::tagged("ok").await;
    let bed = Arc::new(TestBed::new(hello(&[&origin])).await);
    let mut tasks = tokio::task::JoinSet::new();
    for (name, request, status) in BAD {
        let bed = bed.clone();
        tasks.spawn(async move {
            let mut client = Client::connect(bed.address).await;
            client.stream.set_nodelay(true).unwrap();
            for byte in [request, SECOND].concat().bytes() {
                // The response may arrive, and the connection end, before everything is sent.
                if client.stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            assert_eq!(client.reply().await.status, *status, "{name}");
        });
    }
    tasks.join_all().await;
    assert_eq!(origin.seen(), [""; 0]);
}

#[tokio::test]
async fn requests_before_a_malformed_one_are_answered_first() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    let (_, bad, _) = BAD[0];
    client.send([SECOND, bad, SECOND].concat()).await;
    assert_eq!(client.reply().await.body, "ok");
    assert_eq!(client.reply().await.status, 400);
    assert_eq!(client.rest().await, b"");
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn malformed_chunks_end_the_request_and_the_connection() {
    for (name, body) in BAD_CHUNKS {
        let origin = Origin::tagged("ok").await;
        let bed = TestBed::new(hello(&[&origin])).await;
        let head = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut client = Client::connect(bed.address).await;
        client.send([head, body, SECOND].concat()).await;
        let all = String::from_utf8(client.rest().await).unwrap();
        assert!(!all.contains(" 200 "), "{name}: {all}");
        assert!(
            all.is_empty() || all.starts_with("HTTP/1.1 400 "),
            "{name}: {all}"
        );
        assert_eq!(origin.seen(), [""; 0], "{name}: no whole request arrived");
    }
}

#[tokio::test]
async fn unusual_but_valid_requests_are_forwarded() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    for (request, clean) in [
        (
            "\r\nGET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: hello.localhost\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nhOsT:hello.localhost\r\nx: \t é \t\r\n\r\n",
            "x: é\r\n",
        ),
        (
            "GET //a/../b?c=%22d HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
            "GET //a/../b?c=%22d HTTP/1.1\r\n",
        ),
        (
            "GET /a\"<b>`?c=\"<d>`\" HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
            "GET /a\"<b>`?c=\"<d>`\" HTTP/1.1\r\nhost: hello.localhost\r\n",
        ),
        (
            "M-SEARCH / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
            "M-SEARCH / HTTP/1.1\r\n",
        ),
        (
            "MALFORMED / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
            "MALFORMED / HTTP/1.1\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\"\r\nabc\r\n00\r\nx: y\r\n\r\n",
            "\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
        ),
    ] {
        let reply = crate::support::ask(bed.address, request).await;
        assert_eq!(reply.status, 200, "{request:?}: {}", reply.body);
        let seen = origin.seen().pop().unwrap();
        assert!(seen.contains(clean), "{clean:?} in {seen:?}");
    }
}

#[tokio::test]
async fn what_cannot_become_a_request_is_answered_at_once() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let cases: [(&[u8], u16, &str); 7] = [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            400,
            "plain HTTP, not TLS",
        ),
        (b"\x16", 400, "plain HTTP, not TLS"),
        (b"\x80\x2e\x01", 400, "request line"),
        (b"SSH-2.0-OpenSSH_9\r\n", 400, "request line"),
        (b"GET /\r\n", 400, "request line"),
        (b"GET / HTTP/2.0\r\n", 505, "only HTTP/1.1"),
        (b"{\"json\"", 400, "request line"),
    ];
    for (bytes, status, reason) in cases {
        let mut client = Client::connect(bed.address).await;
        client.send(bytes).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "{bytes:?}");
        assert!(reply.body.contains(reason), "{bytes:?}: {}", reply.body);
    }
}

#[tokio::test]
async fn a_target_over_the_limit_is_414() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let request = |len: usize| {
        let path = "x".repeat(len);
        format!("GET /{path} HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")
    };
    assert_eq!(
        crate::support::ask(bed.address, request(30_000))
            .await
            .status,
        200
    );
    for len in [33_000, 70_000] {
        let reply = crate::support::ask(bed.address, request(len)).await;
        assert_eq!(reply.status, 414, "{}", reply.body);
        assert!(reply.body.contains("(--head-bytes)"), "{}", reply.body);
    }
}
