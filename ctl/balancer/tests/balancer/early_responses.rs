//! Interim responses, expectations, and responses that come before the end of a request.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::support::{Client, Origin, TestBed, ask, hello, soon};

const GET: &str = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
const EXPECT: &str = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 4\r\n\
     Expect: 100-continue\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn interim_responses_reach_http_1_1_clients_in_order() {
    let origin = Origin::replying(
        "HTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client.send([GET, GET].concat()).await;
    for _ in 0..2 {
        assert_eq!(client.head().await, "HTTP/1.1 102 Processing\r\n\r\n");
        let hints = client.head().await.to_ascii_lowercase();
        assert!(hints.starts_with("http/1.1 103 early hints\r\n"), "{hints}");
        assert!(hints.contains("link: </a.css>; rel=preload\r\n"), "{hints}");
        assert!(!hints.contains("x-hop"), "{hints}");
        assert_eq!(client.reply().await.body, "ok");
    }
    let mut old = Client::connect(bed.address).await;
    old.send(GET.replace("HTTP/1.1", "HTTP/1.0")).await;
    let all = String::from_utf8(old.rest().await).unwrap();
    assert!(all.starts_with("HTTP/1.0 200 OK\r\n"), "{all}");
}

#[tokio::test]
async fn interim_responses_are_limited() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(4);
    let origin = Origin::replying(hints + OK).await;
    for (limit, status) in [(4, 200), (3, 502)] {
        let bed = TestBed::with(hello(&[&origin]), |settings| {
            settings.limits.max_interim_responses = limit;
        })
        .await;
        let mut client = Client::connect(bed.address).await;
        client.send(GET).await;
        let head = loop {
            let head = client.head().await;
            if !head.starts_with("HTTP/1.1 103 ") {
                break head;
            }
        };
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        if status == 502 {
            client.read_until(b"(--max-interim-responses)\n").await;
        }
    }
}

#[tokio::test]
async fn the_process_answers_an_expectation() {
    let origin = Origin::serving(|mut peer| async move {
        let head = peer.head().await.unwrap();
        assert!(head.contains("expect: 100-continue\r\n"), "{head}");
        peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        peer.count_body(4).await;
        peer.send(OK).await;
    })
    .await;
    let bed = TestBed::with(hello(&[&origin]), |settings| {
        settings.limits.continue_timeout = Duration::from_secs(3600);
    })
    .await;
    let mut client = Client::connect(bed.address).await;
    client.send(EXPECT).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body").await;
    assert_eq!(client.reply().await.body, "ok");
}

#[tokio::test]
async fn a_final_response_instead_of_continue_closes_both_sides() {
    let origin = Origin::serving(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            .await;
        peer.until_closed().await;
    })
    .await;
    let bed = TestBed::with(hello(&[&origin]), |settings| {
        settings.limits.continue_timeout = Duration::from_secs(3600);
    })
    .await;
    let mut client = Client::connect(bed.address).await;
    client.send(EXPECT).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.body.as_str()), (403, "no"));
    assert_eq!(reply.header("connection"), Some("close"));
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn an_expectation_in_http_1_0_or_without_a_body_is_ignored() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let bodiless = GET.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(ask(bed.address, bodiless).await.body, "ok");
    let old = EXPECT.replace("HTTP/1.1", "HTTP/1.0") + "body";
    let mut client = Client::connect(bed.address).await;
    client.send(old).await;
    let all = String::from_utf8(client.rest().await).unwrap();
    assert!(all.starts_with("HTTP/1.0 200 OK\r\n"), "{all}");
    for seen in origin.seen() {
        assert!(!seen.contains("expect"), "{seen}");
    }
}

#[tokio::test]
async fn a_response_before_the_end_of_the_request_announces_the_close() {
    let origin = Origin::serving(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
            .await;
        peer.until_closed().await;
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    for host in ["hello", "nobody"] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {host}.localhost\r\nContent-Length: 9999999\r\n\r\nbegin"
        );
        let reply = ask(bed.address, head).await;
        assert!(reply.status == 413 || reply.status == 404);
        assert_eq!(reply.header("connection"), Some("close"), "{host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_first_and_reads_later_gets_an_early_response() {
    let origin = Origin::serving(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
            .await;
        // Closed with unread data: the balancer's next write fails.
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    for (host, status) in [("nobody", 404), ("hello", 413)] {
        for _ in 0..20 {
            let mut client = Client::connect(bed.address).await;
            const LEN: usize = 5 * 1024 * 1024;
            let head = format!(
                "PUT / HTTP/1.1\r\nHost: {host}.localhost\r\nContent-Length: {LEN}\r\n\r\n"
            );
            client.send(head).await;
            let sent = client.stream.write_all(&vec![7; LEN]).await;
            assert!(sent.is_ok(), "{host}: the connection was reset");
            let reply = soon("the response", client.reply()).await;
            if host == "nobody" {
                assert_eq!(reply.status, status);
            } else {
                // The process reset its connection: its response may be lost on its way to the balancer.
                assert!([413, 502].contains(&reply.status), "{}", reply.status);
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_has_closed_its_sending_direction_gets_its_responses() {
    let origin = Origin::serving(|mut peer| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            peer.send(OK).await;
        }
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let post = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 4\r\n\r\nbody";
    for requests in [vec![GET], vec![post], vec![GET, post, GET]] {
        let mut client = Client::connect(bed.address).await;
        client.send(requests.concat()).await;
        client.stream.shutdown().await.unwrap();
        for _ in &requests {
            assert_eq!(client.reply().await.body, "ok");
        }
        assert_eq!(client.rest().await, b"");
    }
    // Without a complete request there is nothing to wait for.
    let mut client = Client::connect(bed.address).await;
    client.send("GET / HTTP/1.1\r\nHost: hello").await;
    client.stream.shutdown().await.unwrap();
    client.rest().await;
}
