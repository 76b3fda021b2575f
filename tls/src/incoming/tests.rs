use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::PlainHttp;

async fn incoming(bounds: Bounds) -> (Incoming, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sniffer = ProtocolSniffer::new(Arc::default(), None, PlainHttp::LoopbackOnly, "x").unwrap();
    (Incoming::new(listener, sniffer, bounds), address)
}

#[tokio::test]
async fn silent_connections_do_not_delay_others_and_the_oldest_is_evicted() {
    let bounds = Bounds {
        pending: 4,
        handshake_timeout: Duration::from_secs(600),
    };
    let (mut incoming, address) = incoming(bounds).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut good = TcpStream::connect(address).await.unwrap();
    good.write_all(b"G").await.unwrap();
    let (mut stream, from) = incoming.next().await;
    assert_eq!(from, good.local_addr().unwrap());
    assert_eq!(stream.read_u8().await.unwrap(), b'G');
    // The oldest was closed.
    let mut nothing = Vec::new();
    let ended = silent[0].read_to_end(&mut nothing).await;
    assert!(ended.is_err() || nothing.is_empty());
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let bounds = Bounds {
        pending: 4,
        handshake_timeout: Duration::from_millis(50),
    };
    let (_incoming, address) = incoming(bounds).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    let ended = silent.read_to_end(&mut nothing).await;
    assert!(ended.is_err() || nothing.is_empty());
}
