use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

#[tokio::test]
async fn the_oldest_connection_gives_way() {
    let mut connections = Connections::new(2);
    let mut admitted = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (client, server) = duplex(64);
        clients.push(client);
        admitted.push(connections.admit(server));
    }
    let mut byte = [0];
    admitted[0].read(&mut byte).await.unwrap_err();
    for index in [1, 2] {
        clients[index].write_all(b"x").await.unwrap();
        assert_eq!(admitted[index].read(&mut byte).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_silent_reader_is_woken_by_its_eviction() {
    let mut connections = Connections::new(1);
    let (_client, server) = duplex(64);
    let mut first = connections.admit(server);
    let reading = tokio::spawn(async move { first.read(&mut [0]).await });
    tokio::task::yield_now().await;
    let (_other, server) = duplex(64);
    let _second = connections.admit(server);
    reading.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn closed_connections_do_not_count_and_reserved_ones_stay() {
    let mut connections = Connections::new(1);
    let (mut client, server) = duplex(64);
    let mut reserved = Connections::reserved(server);
    for _ in 0..3 {
        let (mut other, server) = duplex(64);
        let mut admitted = connections.admit(server);
        other.write_all(b"x").await.unwrap();
        assert_eq!(admitted.read(&mut [0]).await.unwrap(), 1);
    }
    client.write_all(b"x").await.unwrap();
    assert_eq!(reserved.read(&mut [0]).await.unwrap(), 1);
}
