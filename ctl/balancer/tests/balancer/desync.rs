//! What other proxies have let through, or lost: bytes that one side reads as something else than the other.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::{io::AsyncWriteExt, sync::Notify};

use crate::support::{Client, Origin, TestBed, ask, hello, soon, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_within_a_body_that_nobody_reads_is_not_executed() {
    let origin = Origin::serving(|mut peer| async move {
        while let Some(head) = peer.head().await {
            let reply = match head.contains("smuggled") {
                true => "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
                false => OK,
            };
            peer.send(reply).await;
        }
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let len = SMUGGLED.len() + 1;
    let head = format!("POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: {len}\r\n\r\n");
    let mut client = Client::connect(bed.address).await;
    client.send(head).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
    assert_eq!(reply.header("connection"), Some("close"));
    // Its connection to the process is not used again either.
    client.stream.write_all(SMUGGLED.as_bytes()).await.ok();
    let rest = client.rest().await;
    assert_eq!(String::from_utf8_lossy(&rest), "");
    assert_eq!(bed.get("/").await.body, "ok");
}

#[tokio::test]
async fn bytes_after_a_response_without_body_are_not_the_next_response() {
    for (method, response) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ] {
        let origin = Origin::replying(response).await;
        let bed = TestBed::new(hello(&[&origin])).await;
        for _ in 0..10 {
            let mut client = Client::connect(bed.address).await;
            client.send(GET.replace("GET", method)).await;
            let head = client.head().await;
            assert!(head.starts_with(&response[..12]), "{response}: {head}");
            client.stream.shutdown().await.unwrap();
            assert_eq!(client.rest().await, b"", "{response}");
        }
    }
}

#[tokio::test]
async fn an_upgrade_is_not_a_tunnel_before_the_process_says_so() {
    let origin = Origin::tagged("no").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let upgrade = "GET /chat HTTP/1.1\r\nHost: hello.localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let hidden = "GET /hidden HTTP/1.1\r\nHost: other.localhost\r\n\r\n";
    let mut client = Client::connect(bed.address).await;
    client.send([upgrade, hidden, "\0\x01raw"].concat()).await;
    // Each is a request, routed and validated on its own.
    for status in [200, 404, 400] {
        assert_eq!(client.reply().await.status, status);
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn framing_headers_of_a_switch_say_nothing_about_the_tunnel() {
    for framing in ["Transfer-Encoding: chunked", "Content-Length: 5"] {
        let origin = Origin::serving(move |mut peer| async move {
            peer.request().await;
            peer.send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{framing}\r\n\r\n\
                 \u{c1}\u{1}raw bytes"
            ))
            .await;
        })
        .await;
        let bed = TestBed::new(hello(&[&origin])).await;
        let mut client = Client::connect(bed.address).await;
        client
            .send("GET / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        let head = client.head().await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(
            !head.contains("transfer-encoding") && !head.contains("content-length"),
            "{head}"
        );
        let tunnelled = String::from_utf8(client.rest().await).unwrap();
        assert_eq!(tunnelled, "\u{c1}\u{1}raw bytes");
    }
}

#[tokio::test]
async fn a_client_that_closes_does_not_close_the_connection_to_the_process() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let origin = Origin::serving(move |mut peer| {
        count.fetch_add(1, SeqCst);
        async move {
            while let Some(request) = peer.request().await {
                assert!(!request.contains("connection"), "{request}");
                peer.send(OK).await;
            }
        }
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let closing = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    for _ in 0..5 {
        let mut client = Client::connect(bed.address).await;
        client.send(&closing).await;
        let reply = client.reply().await;
        assert_eq!(reply.header("connection"), Some("close"));
        assert_eq!(client.rest().await, b"");
    }
    assert_eq!(connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_rejection_after_continue_reaches_the_client() {
    let origin = Origin::serving(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        peer.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
            .await;
        peer.until_closed().await;
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client
        .send("PUT / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.body.as_str()), (413, "big"));
    assert_eq!(reply.header("connection"), Some("close"));
}

#[tokio::test]
async fn chunks_end_once_and_the_next_request_follows_them() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    let chunked = "PUT / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    // The last chunk comes on its own.
    client.send([chunked, "3\r\nabc\r\n"].concat()).await;
    let backend = bed.balancer.table().backends().next().unwrap().clone();
    wait_until("the request to be in flight", || backend.is_used()).await;
    client.send("0\r\n\r\n").await;
    assert_eq!(client.reply().await.body, "ok");
    client.send(GET).await;
    assert_eq!(client.reply().await.body, "ok");
    let seen = origin.seen();
    assert!(
        seen[0].ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        "{}",
        seen[0]
    );
    assert!(seen[1].starts_with("GET / HTTP/1.1\r\n"), "{}", seen[1]);
}

#[tokio::test]
async fn request_and_response_bodies_flow_at_the_same_time() {
    let origin = Origin::serving(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        for _ in 0..3 {
            peer.count_body(1).await;
            peer.send("2\r\n->\r\n").await;
        }
        peer.send("0\r\n\r\n").await;
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 3\r\n\r\n")
        .await;
    client.head().await;
    for _ in 0..3 {
        client.send("x").await;
        assert_eq!(client.read_until(b"->\r\n").await, b"2\r\n->\r\n");
    }
    assert_eq!(client.read_until(b"\r\n\r\n").await, b"0\r\n\r\n");
}

#[tokio::test]
async fn a_slow_stream_is_given_up_once_its_client_is_gone() {
    let left = Arc::new(Notify::new());
    let tell = left.clone();
    let origin = Origin::serving(move |mut peer| {
        let tell = tell.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata\n\r\n")
                .await;
            // Nothing more comes: only the close tells that nobody listens.
            peer.until_closed().await;
            tell.notify_one();
        }
    })
    .await;
    let bed = TestBed::with(hello(&[&origin]), |settings| {
        settings.limits.half_close_timeout = std::time::Duration::from_millis(100);
    })
    .await;
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    client.read_until(b"data").await;
    drop(client);
    soon("the process to be told", left.notified()).await;
}

#[tokio::test]
async fn a_chunked_response_to_http_1_0_ends_with_the_connection() {
    let origin = Origin::replying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
    )
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client
        .send("GET / HTTP/1.0\r\nHost: hello.localhost\r\nConnection: keep-alive\r\n\r\n")
        .await;
    let all = String::from_utf8(client.rest().await).unwrap();
    assert!(all.contains("\r\nconnection: close\r\n"), "{all}");
    assert!(all.ends_with("\r\n\r\nabc"), "{all}");
    // With a length it stays open, and says so.
    let sized = Origin::tagged("sized").await;
    bed.route(hello(&[&sized])).await;
    let mut client = Client::connect(bed.address).await;
    let request = "GET / HTTP/1.0\r\nHost: hello.localhost\r\nConnection: keep-alive\r\n\r\n";
    client.send([request, request].concat()).await;
    for _ in 0..2 {
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert!(head.contains("connection: keep-alive\r\n"), "{head}");
        assert_eq!(client.exactly(5).await, b"sized");
    }
}

#[tokio::test]
async fn a_response_without_date_gets_one() {
    for (date, count) in [("", 1), ("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 1)] {
        let origin = Origin::replying(format!(
            "HTTP/1.1 200 OK\r\n{date}Content-Length: 0\r\n\r\n"
        ))
        .await;
        let bed = TestBed::new(hello(&[&origin])).await;
        let head = bed.get("/").await.head.to_ascii_lowercase();
        assert_eq!(head.matches("\r\ndate: ").count(), count, "{head}");
        assert_eq!(head.contains("1994"), !date.is_empty(), "{head}");
    }
}

#[tokio::test]
async fn malformed_trailers_and_chunks_of_a_process_cut_the_response() {
    for body in [
        "3\r\nabcX",
        "zz\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nno trailer\r\n\r\n",
    ] {
        let response = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let origin = Origin::replying(response).await;
        let bed = TestBed::new(hello(&[&origin])).await;
        let mut client = Client::connect(bed.address).await;
        client.send(GET).await;
        let all = String::from_utf8(client.rest().await).unwrap();
        assert!(!all.ends_with("0\r\n\r\n"), "{body}: {all}");
    }
}

#[tokio::test]
async fn an_early_bird_is_served_although_it_has_closed() {
    // The whole request and its end are there before the balancer looks.
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    for _ in 0..20 {
        let mut client = Client::connect(bed.address).await;
        client.send(GET).await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.reply().await.body, "ok");
    }
    assert_eq!(ask(bed.address, GET).await.body, "ok");
}
