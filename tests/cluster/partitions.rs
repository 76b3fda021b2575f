//! A worker that another one no longer reaches, although the controller reaches both.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options, containers::containers, images};

use crate::names::{answered, asks};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
/// Longer than anything that is waited for here, and shorter than TCP's own patience.
const SILENCE: Duration = Duration::from_secs(30);

/// A connection that was answered, with the process that answers on it.
fn connect(to: SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let process = ask(&mut stream).unwrap();
    (stream, process)
}

/// The process that answers a request on an open connection.
fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(REQUEST)?;
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer)?;
    if length == 0 {
        return Err(ErrorKind::ConnectionReset.into());
    }
    Ok(answered(&String::from_utf8_lossy(&buffer[..length])))
}

#[test]
fn connections_leave_a_worker_that_does_not_answer_another_one_and_come_back() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options {
        workers: 2,
        ..Options::default()
    });
    let service = |name: &str, more: &str| {
        format!("name = \"{name}\"\nconcurrency = 2\nport = 8080\nmemory = \"32MiB\"\n{more}\n")
    };
    let hello = images::sample("hello");
    cluster.deploy_healthy(&service("db", ""), &hello);
    cluster.deploy_healthy(&service("web", "needs = [\"db\"]"), &hello);
    let (db, web) = (containers(&cluster, "db"), containers(&cluster, "web"));
    let both: BTreeSet<String> = db.iter().map(|it| it.id.clone()).collect();
    let (here, there) = (db[0].id.clone(), db[1].id.clone());
    let at = SocketAddr::from(([100, 80, 0, 1], 8080));
    cluster.wait("web to reach both processes of db", || {
        (asks(&web[0], at).as_ref() == Ok(&both)).then_some(())
    });
    let [mut sends, mut waits] = web[0].run(move || {
        let connections = std::iter::repeat_with(|| connect(at));
        let mut of_there = connections.filter(|(_, process)| *process == there);
        [(); 2].map(|()| of_there.next().unwrap().0)
    });

    let (first, second) = (cluster.worker(0), cluster.worker(1));
    cluster.network().cut(first, second).unwrap();
    let only_here: BTreeSet<String> = [here].into();
    cluster.wait("connections to stay on the own worker", || {
        (asks(&web[0], at).as_ref() == Ok(&only_here)).then_some(())
    });
    // A client that sends nothing learns of it as well as one that does.
    let error = waits.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
    let error = ask(&mut sends).unwrap_err();
    let is_ended = [
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionAborted,
        ErrorKind::BrokenPipe,
    ];
    assert!(is_ended.contains(&error.kind()), "{error}");
    // To the controller, nothing is wrong with either.
    assert_eq!(cluster.state().unwrap().alive_nodes.len(), 2);
    assert_eq!(cluster.wait_for_healthy("db", 2).len(), 2);

    cluster.network().heal(first, second).unwrap();
    cluster.wait("web to reach both processes of db again", || {
        (asks(&web[0], at).as_ref() == Ok(&both)).then_some(())
    });
}
