use std::{sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt, sync::Notify};
use tucano_balancer::{limits::Limits, settings::Settings};

use crate::support::{Client, Origin, TestBed, ask, hello, soon, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
const SHORT: Duration = Duration::from_millis(150);

async fn bed(origin: &Origin, change: impl FnOnce(&mut Limits)) -> TestBed {
    TestBed::with(hello(&[origin]), |settings: &mut Settings| {
        change(&mut settings.limits)
    })
    .await
}

#[tokio::test]
async fn a_slow_head_is_408_even_if_it_trickles() {
    let origin = Origin::tagged("ok").await;
    let bed = bed(&origin, |limits| limits.head_timeout = SHORT).await;
    let mut client = Client::connect(bed.address).await;
    client
        .send("GET / HTTP/1.1\r\nHost: hello.localhost\r\n")
        .await;
    let (mut read, mut write) = client.stream.into_split();
    let trickle = async {
        while write.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut answer = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut answer);
    soon("the connection to end", async {
        tokio::join!(trickle, reading)
    })
    .await
    .1
    .ok();
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{answer}"
    );
    assert!(
        answer.ends_with("the request's head did not arrive in time (--head-timeout)\n"),
        "{answer}"
    );
    assert_eq!(origin.seen(), [""; 0]);
}

#[tokio::test]
async fn an_idle_connection_is_closed_before_and_after_requests() {
    let origin = Origin::tagged("ok").await;
    let bed = bed(&origin, |limits| limits.idle_timeout = SHORT).await;
    let mut silent = Client::connect(bed.address).await;
    assert_eq!(silent.rest().await, b"");
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    assert_eq!(client.reply().await.body, "ok");
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn a_connection_that_waits_for_its_response_is_not_idle() {
    let origin = Origin::serving(|mut peer| async move {
        peer.request().await;
        tokio::time::sleep(SHORT * 3).await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl")
            .await;
        tokio::time::sleep(SHORT * 3).await;
        peer.send("ow").await;
    })
    .await;
    let bed = bed(&origin, |limits| {
        (limits.idle_timeout, limits.head_timeout) = (SHORT, SHORT)
    })
    .await;
    assert_eq!(bed.get("/").await.body, "slow");
}

#[tokio::test]
async fn a_body_that_stops_is_408() {
    let origin = Origin::tagged("ok").await;
    let bed = bed(&origin, |limits| limits.body_timeout = SHORT).await;
    for framing in [
        "Content-Length: 9\r\n\r\nbegin",
        "Transfer-Encoding: chunked\r\n\r\n9\r\nbegin",
    ] {
        let reply = ask(
            bed.address,
            format!("POST / HTTP/1.1\r\nHost: hello.localhost\r\n{framing}"),
        )
        .await;
        assert_eq!(reply.status, 408, "{}", reply.body);
        assert_eq!(
            reply.body,
            "the client stopped sending the request's body (--body-timeout)\n"
        );
    }
    assert_eq!(origin.seen(), [""; 0]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let closed = Arc::new(Notify::new());
    let tell = closed.clone();
    let origin = Origin::serving(move |mut peer| {
        let tell = tell.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\n\r\n").await;
            while peer.stream.write_all(&[7; 65536]).await.is_ok() {}
            tell.notify_one();
        }
    })
    .await;
    let bed = bed(&origin, |limits| limits.write_timeout = SHORT).await;
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    soon(
        "the process to see the end of its connection",
        closed.notified(),
    )
    .await;
    wait_until("the client's connection to be gone", || {
        bed.balancer.clients.connections() == 0
    })
    .await;
    drop(client);
}

#[tokio::test]
async fn heads_are_limited_in_size_and_number_of_headers() {
    let origin = Origin::tagged("ok").await;
    let bed = bed(&origin, |limits| {
        limits.head_bytes = bytesize::ByteSize::kib(8);
        limits.max_headers = 20;
    })
    .await;
    let request = |lines: &str| format!("GET / HTTP/1.1\r\nHost: hello.localhost\r\n{lines}\r\n");
    let long = |len: usize| request(&format!("x: {}\r\n", "y".repeat(len)));
    assert_eq!(ask(bed.address, long(8000)).await.status, 200);
    let reply = ask(bed.address, long(8192)).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (431, "the request's head is too large (--head-bytes)\n")
    );
    // Far beyond the limit, the rest is not read and the connection may be reset before the client reads the answer.
    assert_eq!(ask(bed.address, long(200 * 1024)).await.status, 431);
    assert_eq!(ask(bed.address, "x".repeat(100_000)).await.status, 431);
    assert_eq!(
        ask(bed.address, request(&"a: b\r\n".repeat(19)))
            .await
            .status,
        200
    );
    let reply = ask(bed.address, request(&"a: b\r\n".repeat(20))).await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (431, "the request has too many headers (--max-headers)\n")
    );
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn chunk_extensions_and_trailers_are_bounded() {
    let origin = Origin::tagged("ok").await;
    let bed = bed(&origin, |limits| {
        limits.head_bytes = bytesize::ByteSize::kib(8)
    })
    .await;
    let head = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(9000)),
        format!("{}0\r\n\r\n", "1;xxxxxxxxxxxxxxx\r\na\r\n".repeat(600)),
        format!("0\r\n{}\r\n", "x: y\r\n".repeat(3000)),
    ] {
        let mut client = Client::connect(bed.address).await;
        client.send([head, &body].concat()).await;
        let answer = String::from_utf8(client.rest().await).unwrap();
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    assert_eq!(origin.seen(), [""; 0]);
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_slot() {
    let go_on = Arc::new(Notify::new());
    let gate = go_on.clone();
    let origin = Origin::serving(move |mut peer| {
        let gate = gate.clone();
        async move {
            while peer.request().await.is_some() {
                gate.notified().await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .await;
            }
        }
    })
    .await;
    let bed = bed(&origin, |limits| limits.max_connections = 2).await;
    let mut clients = [
        Client::connect(bed.address).await,
        Client::connect(bed.address).await,
    ];
    for client in &mut clients {
        client.send(GET).await;
    }
    wait_until("requests in flight", || origin.seen().len() == 2).await;
    let mut third = Client::connect(bed.address).await;
    third.send(GET).await;
    let mut fourth = Client::connect(bed.address).await;
    fourth.send(GET).await;
    tokio::time::sleep(SHORT).await;
    assert_eq!(bed.balancer.clients.connections(), 2);
    assert_eq!(origin.seen().len(), 2);
    for client in &mut clients {
        go_on.notify_one();
        assert_eq!(client.reply().await.status, 200);
    }
    drop(clients);
    wait_until("the other requests", || origin.seen().len() == 4).await;
    go_on.notify_waiters();
    assert_eq!(third.reply().await.status, 200);
    assert_eq!(fourth.reply().await.status, 200);
}

#[tokio::test]
async fn connecting_is_limited_over_all_processes() {
    let refusing: Vec<_> = (0..5).map(|_| crate::support::refusing_address()).collect();
    let endpoints = refusing.iter().enumerate();
    let endpoints = endpoints
        .map(|(n, (address, _))| crate::support::endpoint(n, *address))
        .collect();
    let limits = Limits {
        connect_total_timeout: Duration::ZERO,
        ..Limits::default()
    };
    let bed = TestBed::with_limits(vec![crate::support::service("hello", endpoints)], limits).await;
    assert_eq!(bed.get("/").await.status, 502);
    let metrics = tucano_balancer::metrics::render(&bed.balancer).unwrap();
    assert!(
        metrics.contains("ejections_total{service=\"hello\"} 1\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn idle_connections_are_closed_if_others_need_their_slots() {
    let origin = Origin::tagged("ok").await;
    let bed = bed(&origin, |limits| limits.max_connections = 3).await;
    let mut silent = Client::connect(bed.address).await;
    let mut partial = Client::connect(bed.address).await;
    partial.send("GET / HT").await;
    let mut used = Client::connect(bed.address).await;
    used.send(GET).await;
    assert_eq!(used.reply().await.body, "ok");
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(bed.address).await;
        client.send(GET).await;
        assert_eq!(client.reply().await.body, "ok");
        others.push(client);
    }
    // Each of these was the one that had been idle for longest.
    for client in [&mut silent, &mut partial, &mut used] {
        client.rest().await;
    }
}

#[tokio::test]
async fn connections_are_limited_for_each_address() {
    let go_on = Arc::new(Notify::new());
    let gate = go_on.clone();
    let origin = Origin::serving(move |mut peer| {
        let gate = gate.clone();
        async move {
            while peer.request().await.is_some() {
                gate.notified().await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .await;
            }
        }
    })
    .await;
    for trusts_proxy in [false, true] {
        let bed = TestBed::with(hello(&[&origin]), |settings| {
            settings.limits.max_connections_per_address = 2;
            settings.trust_forwarded = trusts_proxy;
        })
        .await;
        let before = origin.seen().len();
        let mut clients = [
            Client::connect(bed.address).await,
            Client::connect(bed.address).await,
        ];
        for client in &mut clients {
            client.send(GET).await;
        }
        wait_until("requests in flight", || origin.seen().len() == before + 2).await;
        let mut third = Client::connect(bed.address).await;
        third.send(GET).await;
        if trusts_proxy {
            wait_until("the third request", || origin.seen().len() == before + 3).await;
            continue;
        }
        let reply = third.reply().await;
        assert_eq!(reply.status, 429);
        assert_eq!(
            reply.body,
            "too many connections from this address (--max-connections-per-address)\n"
        );
        assert_eq!(third.rest().await, b"");
        go_on.notify_one();
        go_on.notify_one();
    }
}

#[tokio::test]
async fn a_body_below_the_minimum_rate_is_408() {
    let origin = Origin::tagged("ok").await;
    let bed = bed(&origin, |limits| {
        limits.body_timeout = Duration::from_secs(1);
        limits.body_rate_min = bytesize::ByteSize::b(1000);
    })
    .await;
    let mut client = Client::connect(bed.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 1000000\r\n\r\n")
        .await;
    let (mut read, mut write) = client.stream.into_split();
    let trickle = async {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut answer = vec![0; 4096];
    let reading = tokio::io::AsyncReadExt::read(&mut read, &mut answer);
    let len = tokio::select! {
        len = reading => len.unwrap(),
        () = trickle => panic!("the connection ended without a response"),
    };
    let answer = String::from_utf8_lossy(&answer[..len]);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("(--body-rate-min)"), "{answer}");
}
