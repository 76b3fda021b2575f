use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{io::AsyncReadExt, io::AsyncWriteExt, sync::Notify, time::timeout};

use crate::support::{Client, Origin, TestBed, ask, hello, soon, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What the process received of a request with these additional header lines.
async fn seen_by_process(lines: &str) -> String {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let request = format!("GET /x?q=1 HTTP/1.1\r\nHost: hello.localhost:81\r\n{lines}\r\n");
    assert_eq!(ask(bed.address, request).await.status, 200);
    origin.seen().remove(0)
}

/// The head that the client received of this response.
async fn seen_by_client(response: &'static str) -> String {
    let origin = Origin::replying(response).await;
    let bed = TestBed::new(hello(&[&origin])).await;
    bed.get("/").await.head.to_ascii_lowercase()
}

#[tokio::test]
async fn forwarding_headers_are_set() {
    let head = seen_by_process("Accept: a\r\nAccept: b\r\nX-Own: 1\r\n").await;
    for line in [
        "GET /x?q=1 HTTP/1.1",
        "host: hello.localhost:81",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: hello.localhost:81",
        "accept: a",
        "accept: b",
        "x-own: 1",
    ] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} in {head}");
    }
}

#[tokio::test]
async fn forwarding_headers_of_clients_are_dropped() {
    let head = seen_by_process(
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
         X-Forwarded-Port: 666\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
         X_Forwarded_For: 6.6.6.6\r\nx-forwarded_host: evil\r\n",
    )
    .await;
    for claim in ["6.6.6.6", "evil", "https", "666"] {
        assert!(!head.contains(claim), "{claim} in {head}");
    }
    assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n"), "{head}");
}

#[tokio::test]
async fn forwarding_headers_of_a_trusted_proxy_are_extended() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::with(hello(&[&origin]), |settings| {
        settings.trust_forwarded = true
    })
    .await;
    let request = "GET / HTTP/1.1\r\nHost: hello.localhost\r\nX-Forwarded-For: 1.1.1.1\r\n\
         X-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 3.3.3.3\r\n\
         Forwarded: for=4.4.4.4\r\n\r\n";
    assert_eq!(ask(bed.address, request).await.status, 200);
    let head = origin.seen().remove(0);
    assert!(
        head.contains("x-forwarded-for: 1.1.1.1, 2.2.2.2, 127.0.0.1\r\n"),
        "{head}"
    );
    assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    assert!(
        !head.contains("3.3.3.3") && !head.contains("4.4.4.4"),
        "{head}"
    );
}

#[tokio::test]
async fn hop_by_hop_headers_are_not_forwarded() {
    let head = seen_by_process(
        "Connection: keep-alive, X-Hop\r\nConnection: x-other\r\nX-Hop: 1\r\nX-Other: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: secret\r\nTE: gzip\r\nUpgrade: h2c\r\nX-End: 1\r\n",
    )
    .await;
    for name in [
        "connection",
        "x-hop",
        "x-other",
        "keep-alive",
        "proxy-",
        "te:",
        "upgrade",
    ] {
        assert!(!head.contains(name), "{name} in {head}");
    }
    assert!(head.contains("x-end: 1\r\n"), "{head}");

    let head = seen_by_client(
        "HTTP/1.1 200 Fine\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n\
         Proxy-Authenticate: Basic\r\nX-End: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    for name in ["connection", "x-hop", "keep-alive", "upgrade", "proxy-"] {
        assert!(!head.contains(name), "{name} in {head}");
    }
    for line in [
        "http/1.1 200 fine",
        "x-end: 1",
        "set-cookie: a",
        "set-cookie: b",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
}

#[tokio::test]
async fn responses_of_any_framing_arrive_complete() {
    for (response, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc", "abc"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\n",
            "abc",
        ),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", ""),
        ("HTTP/1.1 404 Not Here\r\nContent-Length: 2\r\n\r\nno", "no"),
    ] {
        let origin = Origin::replying(response).await;
        let bed = TestBed::new(hello(&[&origin])).await;
        let mut client = Client::connect(bed.address).await;
        for _ in 0..2 {
            client.send(GET).await;
            assert_eq!(client.reply().await.body, body, "{response}");
        }
    }
}

#[tokio::test]
async fn a_response_delimited_by_close_arrives_complete() {
    for version in ["1.0", "1.1"] {
        let origin = Origin::serving(move |mut peer| async move {
            peer.request().await;
            peer.send(format!("HTTP/{version} 200 OK\r\n\r\nabc")).await;
        })
        .await;
        let bed = TestBed::new(hello(&[&origin])).await;
        let reply = bed.get("/").await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "abc"));
    }
}

#[tokio::test]
async fn a_truncated_response_does_not_look_complete() {
    let origin = Origin::serving(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    let all = client.rest().await;
    let text = String::from_utf8(all).unwrap();
    assert!(text.ends_with("3\r\nabc\r\n"), "no last chunk: {text:?}");
}

#[tokio::test]
async fn head_requests_get_a_head_only() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 300\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let origin = Origin::replying(head).await;
        let bed = TestBed::new(hello(&[&origin])).await;
        let mut client = Client::connect(bed.address).await;
        for _ in 0..2 {
            client.send(GET.replace("GET", "HEAD")).await;
            let seen = client.head().await.to_ascii_lowercase();
            let sized = head.contains("300");
            assert_eq!(seen.contains("content-length: 300\r\n"), sized, "{seen}");
            assert_eq!(seen.contains("content-length"), sized, "{seen}");
        }
        assert!(origin.seen()[0].starts_with("HEAD / "));
    }
}

#[tokio::test]
async fn request_bodies_keep_their_framing() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    for (method, framing, body, arrives) in [
        ("POST", "Content-Length: 3\r\n", "abc", "\r\n\r\nabc"),
        ("POST", "Content-Length: 0\r\n", "", "content-length: 0\r\n"),
        ("DELETE", "Content-Length: 3\r\n", "abc", "\r\n\r\nabc"),
        ("GET", "Content-Length: 3\r\n", "abc", "\r\n\r\nabc"),
        (
            "POST",
            "Transfer-Encoding: chunked\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "GET",
            "Transfer-Encoding: Chunked\r\n",
            "3;a=b\r\nabc\r\n0\r\n\r\n",
            "\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
    ] {
        let head = format!("{method} / HTTP/1.1\r\nHost: hello.localhost\r\n{framing}\r\n{body}");
        assert_eq!(ask(bed.address, &head).await.status, 200, "{head}");
        let seen = origin.seen().pop().unwrap();
        assert!(seen.contains(arrives), "{seen:?}");
        assert_eq!(
            seen.contains("transfer-encoding: chunked\r\n"),
            framing.starts_with('T')
        );
    }
}

/// Sends a chunked request, of which `request` is the end, and has the process answer. Returns the body that the client gets,
/// and what the process sees.
async fn with_trailers(response: &'static str, request: &str) -> (String, String) {
    let origin = Origin::replying(response).await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    let head = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTE: trailers\r\nConnection: te\r\nTransfer-Encoding: chunked\r\n";
    client.send(format!("{head}{request}")).await;
    client.head().await;
    let body = String::from_utf8(client.read_until(b"\r\n\r\n").await).unwrap();
    (body, origin.seen().remove(0))
}

#[tokio::test]
async fn trailers_are_forwarded_except_unsafe_ones() {
    let (body, seen) = with_trailers(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, content-length\r\n\r\n\
         1\r\na\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n",
        "Trailer: x-mine, x-forwarded-for\r\n\r\n\
         1\r\na\r\n0\r\nX-Mine: 8\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
    )
    .await;
    assert_eq!(body, "1\r\na\r\n0\r\nx-sum: 7\r\n\r\n");
    assert!(seen.ends_with("0\r\nx-mine: 8\r\n\r\n"), "{seen}");
    assert!(seen.contains("te: trailers\r\n"), "{seen}");
}

#[tokio::test]
async fn trailers_need_no_announcement() {
    let (body, seen) = with_trailers(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n",
        "\r\n1\r\na\r\n0\r\nX-Mine: 8\r\n\r\n",
    )
    .await;
    assert_eq!(body, "1\r\na\r\n0\r\nx-sum: 7\r\n\r\n");
    assert!(seen.ends_with("0\r\nx-mine: 8\r\n\r\n"), "{seen}");
}

#[tokio::test]
async fn continue_is_sent_only_if_a_process_wants_the_body() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let head = |host: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: {host}.localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = Client::connect(bed.address).await;
    client.send(head("hello")).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body").await;
    assert_eq!(client.reply().await.status, 200);
    assert!(origin.seen()[0].ends_with("body"));
    assert_eq!(ask(bed.address, head("nobody")).await.status, 404);
    let other = head("hello").replace("100-continue", "tea");
    assert_eq!(ask(bed.address, other).await.status, 417);
}

#[tokio::test]
async fn connections_are_reused_on_both_sides() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let origin = Origin::serving(move |mut peer| {
        count.fetch_add(1, SeqCst);
        async move {
            while peer.request().await.is_some() {
                peer.send(OK).await;
            }
        }
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    for _ in 0..50 {
        client.send(GET).await;
        assert_eq!(client.reply().await.body, "ok");
    }
    assert_eq!(connections.load(SeqCst), 1);
}

#[tokio::test]
async fn idle_connections_are_limited_in_number_and_time() {
    let (open, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, answer) = (open.clone(), all.clone());
    let origin = Origin::serving(move |mut peer| {
        let (count, answer) = (count.clone(), answer.clone());
        async move {
            count.fetch_add(1, SeqCst);
            peer.request().await;
            answer.notified().await;
            peer.send(OK).await;
            peer.until_closed().await;
            count.fetch_sub(1, SeqCst);
        }
    })
    .await;
    let bed = TestBed::with(hello(&[&origin]), |settings| {
        settings.limits.upstream_idle = 2;
        settings.limits.upstream_idle_timeout = Duration::from_secs(2);
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(bed.address).await;
        client.send(GET).await;
        clients.push(client);
    }
    wait_until("five connections", || open.load(SeqCst) == 5).await;
    all.notify_waiters();
    for client in &mut clients {
        all.notify_one();
        assert_eq!(client.reply().await.status, 200);
    }
    wait_until("all but two to be closed", || open.load(SeqCst) <= 2).await;
    wait_until("those to be closed as well", || open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let (a, b) = (Origin::tagged("a").await, Origin::tagged("b").await);
    let bed = TestBed::new(hello(&[&a, &b])).await;
    let mut client = Client::connect(bed.address).await;
    let post = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    client.send([GET, post, GET, GET].concat()).await;
    for body in ["a", "b", "a", "b"] {
        assert_eq!(client.reply().await.body, body);
    }
}

#[tokio::test]
async fn http_1_0_clients_are_served() {
    let origin = Origin::replying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    )
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client
        .send("GET / HTTP/1.0\r\nHost: hello.localhost\r\n\r\n")
        .await;
    let all = String::from_utf8(client.rest().await).unwrap();
    assert!(
        all.starts_with("HTTP/1.0 200 OK\r\n") && all.ends_with("\r\n\r\nabc"),
        "{all}"
    );
    assert!(origin.seen()[0].starts_with("GET / HTTP/1.1\r\n"));
}

const MIB: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_response_is_streamed_with_backpressure() {
    const TOTAL: usize = 100 * MIB;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let origin = Origin::serving(move |mut peer| {
        let count = count.clone();
        async move {
            peer.request().await;
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n"
            ))
            .await;
            let piece = vec![7; 64 * 1024];
            while count.load(SeqCst) < TOTAL {
                peer.stream.write_all(&piece).await.unwrap();
                count.fetch_add(piece.len(), SeqCst);
            }
        }
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    client.head().await;
    client.exactly(1).await;
    settled(&sent).await;
    let ahead = sent.load(SeqCst);
    assert!(
        ahead < TOTAL / 2,
        "{ahead} bytes were read for a client that reads nothing"
    );
    let mut read = 1 + client.rest_of_buffer();
    let mut buffer = vec![0; 256 * 1024];
    while read < TOTAL {
        let len = soon("more", client.stream.read(&mut buffer)).await.unwrap();
        assert!(len > 0 && buffer[..len].iter().all(|byte| *byte == 7));
        read += len;
    }
    assert_eq!(read, TOTAL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_request_is_streamed_with_backpressure() {
    const TOTAL: usize = 100 * MIB;
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (begun.clone(), go_on.clone());
    let origin = Origin::serving(move |mut peer| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            peer.head().await;
            tell.notify_one();
            wait.notified().await;
            let read = peer.count_body(TOTAL).await;
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{read}"
            ))
            .await;
        }
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    let head =
        format!("PUT / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: {TOTAL}\r\n\r\n");
    client.send(head).await;
    let piece = vec![7; 64 * 1024];
    client.send(&piece).await;
    soon(
        "the head to arrive before the body is sent",
        begun.notified(),
    )
    .await;
    let mut sent = piece.len();
    // While the process reads nothing, only a bounded amount can be sent.
    while let Ok(written) = timeout(Duration::from_secs(1), client.stream.write(&piece)).await {
        sent += written.unwrap();
        assert!(
            sent < TOTAL / 2,
            "{sent} bytes were read for a process that reads nothing"
        );
    }
    go_on.notify_one();
    while sent < TOTAL {
        let len = piece.len().min(TOTAL - sent);
        client.send(&piece[..len]).await;
        sent += len;
    }
    assert_eq!(client.reply().await.body, TOTAL.to_string());
}

#[tokio::test]
async fn an_early_response_reaches_the_client_and_ends_the_upload() {
    let origin = Origin::serving(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nbig")
            .await;
        peer.until_closed().await;
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 99999999\r\n\r\nbegin")
        .await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.body.as_str()), (413, "big"));
    client.rest().await;
}

#[tokio::test]
async fn a_request_is_cancelled_when_its_client_disconnects() {
    let left = Arc::new(Notify::new());
    let tell = left.clone();
    let origin = Origin::serving(move |mut peer| {
        let tell = tell.clone();
        async move {
            peer.request().await;
            peer.until_closed().await;
            tell.notify_one();
        }
    })
    .await;
    let bed = TestBed::with(hello(&[&origin]), |settings| {
        settings.limits.half_close_timeout = Duration::from_millis(100);
    })
    .await;
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    wait_until("the request to arrive", || !origin.seen().is_empty()).await;
    drop(client);
    soon("the process to be told", left.notified()).await;
}

/// Waits until a counter stops changing.
async fn settled(counter: &AtomicUsize) {
    let mut last = usize::MAX;
    while last != counter.load(SeqCst) {
        last = counter.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
