use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Client, Lab, Origin, ask, hello, until};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: hello.localhost\r\nConnection: keep-alive, Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Accept: y\r\n\r\n";

/// Changes the protocol and sends all bytes back.
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

async fn upgraded(lab: &Lab) -> Client {
    let mut client = Client::connect(lab.address).await;
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

fn tunnels(lab: &Lab) -> usize {
    lab.balancer.tunnels.len()
}

#[tokio::test]
async fn bytes_pass_both_ways_until_a_side_closes() {
    let origin = echo().await;
    let lab = Lab::new(hello(&[&origin])).await;
    let mut client = upgraded(&lab).await;
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
    assert_eq!(tunnels(&lab), 1);
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"bye", "the other direction may go on");
    until("the tunnel to end", || tunnels(&lab) == 0).await;
}

#[tokio::test]
async fn the_processs_close_closes_the_clients_connection() {
    let origin = Origin::serving(|mut peer| async move {
        peer.request().await;
        peer.send([SWITCH, "first words"].concat()).await;
    })
    .await;
    let lab = Lab::new(hello(&[&origin])).await;
    let mut client = upgraded(&lab).await;
    assert_eq!(client.rest().await, b"first words");
    drop(client);
    until("the tunnel to end", || tunnels(&lab) == 0).await;
}

#[tokio::test]
async fn bytes_that_come_before_the_change_are_not_lost() {
    let origin = echo().await;
    let lab = Lab::new(hello(&[&origin])).await;
    let mut client = Client::connect(lab.address).await;
    client.send([UPGRADE, "early bird\n"].concat()).await;
    client.head().await;
    assert_eq!(client.exactly(11).await, b"early bird\n");
}

#[tokio::test]
async fn a_process_that_declines_answers_as_ever() {
    let origin = Origin::tagged("no").await;
    let lab = Lab::new(hello(&[&origin])).await;
    let mut client = Client::connect(lab.address).await;
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
async fn upgrade_required_says_to_what() {
    let origin = Origin::replying(
        "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let lab = Lab::new(hello(&[&origin])).await;
    let reply = lab.get("/").await;
    assert_eq!(reply.header("upgrade"), Some("websocket"));
}

#[tokio::test]
async fn http_2_and_requests_with_a_body_are_not_upgraded() {
    let origin = Origin::tagged("ok").await;
    let lab = Lab::new(hello(&[&origin])).await;
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na",
        "Upgrade: websocket\r\n\r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: hello.localhost\r\n{lines}");
        assert_eq!(ask(lab.address, request).await.body, "ok");
        let seen = origin.seen().pop().unwrap();
        assert!(!seen.contains("upgrade"), "{seen}");
    }
}

#[tokio::test]
async fn an_idle_tunnel_is_closed_and_a_busy_one_is_not() {
    let origin = echo().await;
    let lab = Lab::with(hello(&[&origin]), |settings| {
        settings.limits.tunnel_idle_timeout = Duration::from_secs(1);
        settings.limits.idle_timeout = Duration::from_millis(100);
        settings.limits.head_timeout = Duration::from_millis(100);
    })
    .await;
    let mut client = upgraded(&lab).await;
    for _ in 0..6 {
        client.send("x").await;
        assert_eq!(client.exactly(1).await, b"x");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(client.rest().await, b"");
    until("the tunnel to end", || tunnels(&lab) == 0).await;
}

#[tokio::test]
async fn a_tunnel_outlives_its_process_in_the_table() {
    let origin = echo().await;
    let lab = Lab::new(hello(&[&origin])).await;
    let mut client = upgraded(&lab).await;
    lab.route(hello(&[])).await;
    client.send("still there").await;
    assert_eq!(client.exactly(11).await, b"still there");
}
