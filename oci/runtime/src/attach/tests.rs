use super::*;
use rustix::net::connect;

fn connect_client(state_dir: &Path) -> OwnedFd {
    let client = socket().unwrap();
    with_address(state_dir, NAME, |address| Ok(connect(&client, address)?)).unwrap();
    client
}

fn next(client: &OwnedFd) -> Option<(Kind, Vec<u8>)> {
    let mut buffer = [0; 1 + CHUNK_BYTES];
    let length = rustix::io::read(client, &mut buffer).unwrap();
    Some((
        Kind::of(*buffer[..length].first()?)?,
        buffer[1..length].to_vec(),
    ))
}

fn ask(client: &OwnedFd, request: &Request) {
    rustix::io::write(client, &serde_json::to_vec(request).unwrap()).unwrap();
}

fn serve_all(server: &mut AttachServer) {
    let nobody = std::fs::File::open("/dev/null").unwrap().into();
    // The first round accepts the clients, the second reads their requests.
    for _ in 0..2 {
        let count = server.descriptors().count();
        server.serve(&vec![true; count], &nobody);
    }
}

#[test]
fn excess_clients_are_refused() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut server = AttachServer::bind(state_dir.path()).unwrap();
    let clients: Vec<_> = (0..MAX_CLIENTS)
        .map(|_| connect_client(state_dir.path()))
        .collect();
    clients
        .iter()
        .for_each(|client| ask(client, &Request::Output));
    serve_all(&mut server);
    let late = connect_client(state_dir.path());
    let count = server.descriptors().count();
    let mut ready = vec![false; count];
    ready[0] = true;
    let nobody = std::fs::File::open("/dev/null").unwrap().into();
    server.serve(&ready, &nobody);
    assert_eq!(next(&late).unwrap().0, Kind::Refused);
    assert_eq!(next(&late), None);
    server.broadcast(Source::Stderr, b"hi");
    server.close(&nobody);
    for client in &clients {
        assert_eq!(next(client), Some((Kind::Done, vec![])));
        assert_eq!(next(client), Some((Kind::Stderr, b"hi".to_vec())));
        assert_eq!(next(client), Some((Kind::End, vec![])));
        assert_eq!(next(client), None);
    }
}

#[test]
fn slow_clients_are_disconnected() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut server = AttachServer::bind(state_dir.path()).unwrap();
    let (slow, fast) = (
        connect_client(state_dir.path()),
        connect_client(state_dir.path()),
    );
    ask(&slow, &Request::Output);
    ask(&fast, &Request::Output);
    serve_all(&mut server);
    assert_eq!(next(&fast), Some((Kind::Done, vec![])));
    // Far more than the socket buffer holds.
    for _ in 0..10_000 {
        server.broadcast(Source::Stdout, &[b'x'; CHUNK_BYTES]);
        assert_eq!(next(&fast).unwrap().1.len(), CHUNK_BYTES);
    }
    assert_eq!(server.clients.len(), 1);
    // A client that connects late learns of the exit too.
    let late = connect_client(state_dir.path());
    ask(&late, &Request::Output);
    server.close(&std::fs::File::open("/dev/null").unwrap().into());
    assert_eq!(next(&late), Some((Kind::Done, vec![])));
    assert_eq!(next(&late), Some((Kind::End, vec![])));
    assert_eq!(next(&fast), Some((Kind::End, vec![])));
    let mut seen = Vec::new();
    while let Some((kind, _)) = next(&slow) {
        seen.push(kind);
    }
    assert!(seen.len() > 1 && !seen.contains(&Kind::End));
}

#[test]
fn an_invalid_request_is_refused() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut server = AttachServer::bind(state_dir.path()).unwrap();
    let client = connect_client(state_dir.path());
    rustix::io::write(&client, b"{}").unwrap();
    serve_all(&mut server);
    assert_eq!(next(&client).unwrap().0, Kind::Refused);
    ask(&client, &Request::Signal(999));
    serve_all(&mut server);
    let (kind, why) = next(&client).unwrap();
    assert_eq!(kind, Kind::Refused);
    assert!(String::from_utf8(why).unwrap().contains("999"));
}
