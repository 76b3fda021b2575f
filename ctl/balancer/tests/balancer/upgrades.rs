use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Client, Origin, TestBed, ask, hello, wait_until};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: hello.localhost\r\nConnection: keep-alive, Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Accept: y\r\n\r\n";

/// Switches protocols and echoes all bytes.
async fn echo() -> Origin {
    Origin::serving(|mut peer| async move {
        peer.request().await;
        peer.send(SWITCH).await;
        let mut buffer = [0; 65536];
        while let Ok(len) = peer.stream.read(&mut buffer).await {
            if len == 0 {
                peer.send("bye").await;
                return;
            }
            peer.send(&buffer[..len]).await;
        }
    })
    .await
}

async fn upgraded(bed: &TestBed) -> Client {
    let mut client = Client::connect(bed.address).await;
    client.send(UPGRADE).await;
    let head = client.head().await.to_ascii_lowercase();
    assert!(
        head.starts_with("http/1.1 101 switching protocols\r\n"),
        "{head}"
    );
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-accept: y",
    ] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} in {head}");
    }
    client
}

fn tunnels(bed: &TestBed) -> usize {
    bed.balancer.tunnels.len()
}

#[tokio::test]
async fn bytes_are_copied_in_both_directions_until_close() {
    let origin = echo().await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = upgraded(&bed).await;
    let seen = origin.seen().remove(0);
    assert!(
        seen.contains("connection: upgrade\r\n") && seen.contains("upgrade: websocket\r\n"),
        "{seen}"
    );
    for text in ["hello", "GET / HTTP/1.1\r\n\r\n", "\0\n\n\r"] {
        client.send(text).await;
        assert_eq!(client.exactly(text.len()).await, text.as_bytes());
    }
    let large = vec![9; 1024 * 1024];
    let (mut read, mut write) = client.stream.split();
    let mut back = vec![0; large.len()];
    let (written, read) = tokio::join!(write.write_all(&large), read.read_exact(&mut back));
    written.unwrap();
    read.unwrap();
    assert_eq!(back, large);
    assert_eq!(tunnels(&bed), 1);
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"bye", "the other direction may go on");
    wait_until("the tunnel to end", || tunnels(&bed) == 0).await;
}

#[tokio::test]
async fn a_close_by_the_process_closes_the_client_connection() {
    let origin = Origin::serving(|mut peer| async move {
        peer.request().await;
        peer.send([SWITCH, "first words"].concat()).await;
    })
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = upgraded(&bed).await;
    assert_eq!(client.rest().await, b"first words");
    drop(client);
    wait_until("the tunnel to end", || tunnels(&bed) == 0).await;
}

#[tokio::test]
async fn bytes_sent_before_the_switch_are_not_lost() {
    let origin = echo().await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client.send([UPGRADE, "early bird\n"].concat()).await;
    client.head().await;
    assert_eq!(client.exactly(11).await, b"early bird\n");
}

#[tokio::test]
async fn a_declined_upgrade_continues_with_http() {
    let origin = Origin::tagged("no").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    let plain = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
    client.send([UPGRADE, plain, UPGRADE].concat()).await;
    for _ in 0..3 {
        assert_eq!(client.reply().await.body, "no");
    }
    let unknown = UPGRADE.replace("hello.", "nobody.");
    client.send([&unknown, plain].concat()).await;
    assert_eq!(client.reply().await.status, 404);
    assert_eq!(client.reply().await.body, "no");
}

#[tokio::test]
async fn upgrade_required_names_the_protocol() {
    let origin = Origin::replying(
        "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let reply = bed.get("/").await;
    assert_eq!(reply.header("upgrade"), Some("websocket"));
}

#[tokio::test]
async fn h2c_and_requests_with_a_body_are_not_upgraded() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na",
        "Upgrade: websocket\r\n\r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: hello.localhost\r\n{lines}");
        assert_eq!(ask(bed.address, request).await.body, "ok");
        let seen = origin.seen().pop().unwrap();
        assert!(!seen.contains("upgrade"), "{seen}");
    }
}

#[tokio::test]
async fn an_idle_tunnel_is_closed_and_an_active_one_is_not() {
    let origin = echo().await;
    let bed = TestBed::with(hello(&[&origin]), |settings| {
        settings.limits.tunnel_idle_timeout = Duration::from_secs(1);
        settings.limits.idle_timeout = Duration::from_millis(100);
        settings.limits.head_timeout = Duration::from_millis(100);
    })
    .await;
    let mut client = upgraded(&bed).await;
    for _ in 0..6 {
        client.send("x").await;
        assert_eq!(client.exactly(1).await, b"x");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(client.rest().await, b"");
    wait_until("the tunnel to end", || tunnels(&bed) == 0).await;
}

#[tokio::test]
async fn a_tunnel_survives_the_removal_of_its_process() {
    let origin = echo().await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = upgraded(&bed).await;
    bed.route(hello(&[])).await;
    client.send("still there").await;
    assert_eq!(client.exactly(11).await, b"still there");
}

const PLAIN: &str = "GET /plain HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";

/// Answers `/chat` with an echo tunnel and everything else with `ok`.
async fn echo_at_chat() -> Origin {
    Origin::serving(|mut peer| async move {
        while let Some(request) = peer.request().await {
            if !request.starts_with("GET /chat ") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
                continue;
            }
            peer.send(SWITCH).await;
            let mut buffer = [0; 1024];
            while let Ok(len @ 1..) = peer.stream.read(&mut buffer).await {
                peer.send(&buffer[..len]).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_upgrade_pipelined_after_other_requests_is_tunnelled() {
    let chunked = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n";
    let sized = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 3\r\n\r\nabc";
    let unknown = PLAIN.replace("hello.", "nobody.");
    for before in [
        vec![PLAIN],
        vec![PLAIN, PLAIN],
        vec![PLAIN, chunked, PLAIN],
        vec![chunked],
        vec![sized, chunked],
        vec![unknown.as_str(), PLAIN],
    ] {
        let origin = echo_at_chat().await;
        let bed = TestBed::new(hello(&[&origin])).await;
        let mut client = Client::connect(bed.address).await;
        client.send(before.concat() + UPGRADE + "early").await;
        for request in &before {
            let expected = if request.contains("nobody") { 404 } else { 200 };
            assert_eq!(client.reply().await.status, expected, "{before:?}");
        }
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{before:?}: {head}");
        assert_eq!(client.exactly(5).await, b"early", "{before:?}");
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(client.exactly(18).await, b"GET / HTTP/1.1\r\n\r\n");
        let seen = origin.seen();
        assert!(
            !seen.iter().any(|seen| seen.contains("MALFORMED")),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn requests_pipelined_after_a_declined_upgrade_are_answered() {
    let origin = Origin::tagged("no").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let chunked = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n";
    let old = UPGRADE
        .replace("HTTP/1.1", "HTTP/1.0")
        .replace("keep-alive, Upgrade", "keep-alive");
    for requests in [
        vec![UPGRADE, PLAIN],
        vec![PLAIN, UPGRADE, PLAIN],
        vec![UPGRADE, UPGRADE, PLAIN],
        vec![UPGRADE, chunked, UPGRADE, PLAIN],
        vec![old.as_str(), PLAIN],
    ] {
        let mut client = Client::connect(bed.address).await;
        client.send(requests.concat()).await;
        for _ in &requests {
            assert_eq!(client.reply().await.body, "no", "{requests:?}");
        }
    }
}

#[tokio::test]
async fn a_malformed_request_after_a_declined_upgrade_is_refused() {
    let origin = Origin::tagged("no").await;
    let bed = TestBed::new(hello(&[&origin])).await;
    let mut client = Client::connect(bed.address).await;
    client
        .send([PLAIN, UPGRADE, "GET  / HTTP/1.1\r\n\r\n"].concat())
        .await;
    for status in [200, 200, 400] {
        assert_eq!(client.reply().await.status, status);
    }
    assert_eq!(origin.seen().len(), 2);
}
