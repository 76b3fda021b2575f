//! Services find each other on one worker and across two: by what they need, and by nothing else.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use tucano_testkit::needs;
use tucano_tests::{
    CLUSTER, Cluster, Options,
    containers::{Container, containers},
    images,
};

const WAIT: Duration = Duration::from_secs(2);

/// The processes that answer several requests.
pub(crate) fn asks(from: &Container, to: SocketAddr) -> Result<BTreeSet<String>, ErrorKind> {
    let ask = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, WAIT)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    from.run(move || {
        (0..40)
            .map(|_| ask().map(|text| answered(&text)))
            .collect::<std::io::Result<_>>()
    })
    .map_err(|error| error.kind())
}

/// The processes that answer several datagrams.
fn sends(from: &Container, to: SocketAddr) -> Result<BTreeSet<String>, ErrorKind> {
    let send = move || -> std::io::Result<String> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(WAIT))?;
        socket.connect(to)?;
        socket.send(b"?")?;
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    from.run(move || (0..40).map(|_| send()).collect::<std::io::Result<_>>())
        .map_err(|error| error.kind())
}

/// Answers datagrams with its name.
fn serves_udp(from: &Container) {
    let socket = from.run(|| UdpSocket::bind(("0.0.0.0", 5353)).unwrap());
    let id = from.id.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(id.as_bytes(), from).ok();
        }
    });
}

/// The process that a response names.
pub(crate) fn answered(text: &str) -> String {
    let (_, found) = text.split_once("process=").unwrap();
    found.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn what_is_needed_is_reached_on_any_worker_and_every_other_pair_is_refused() {
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
    let web = service("web", "needs = [\"db\"]\nstart_after = [\"db\"]");
    let answer = cluster.deploy(&web, &hello, "");
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.body.contains("there is no service db"), "{answer:?}");
    let db = service(
        "db",
        "ports = { dns = { port = 5353, protocol = \"udp\" } }",
    );
    for config in [&db, &web, &service("other", "")] {
        cluster.deploy_healthy(config, &hello);
    }
    let (db, web) = (containers(&cluster, "db"), containers(&cluster, "web"));
    let others = containers(&cluster, "other");
    for of_db in &db {
        serves_udp(of_db);
    }
    let both: BTreeSet<String> = db.iter().map(|it| it.id.clone()).collect();
    // The first service of the first cluster has the first address.
    let at = |port| SocketAddr::from(([100, 80, 0, 1], port));
    for of_web in &web {
        cluster.wait("web to reach both processes of db", || {
            (asks(of_web, at(8080)).as_ref() == Ok(&both)).then_some(())
        });
        assert_eq!(sends(of_web, at(5353)).as_ref(), Ok(&both));
    }
    let web_at = SocketAddr::from(([100, 80, 0, 2], 8080));
    for closed in others.iter().chain(&db) {
        assert_eq!(
            asks(closed, at(8080)),
            Err(ErrorKind::ConnectionRefused),
            "{}",
            closed.id
        );
        assert!(sends(closed, at(5353)).is_err(), "{}", closed.id);
        assert_eq!(
            asks(closed, web_at),
            Err(ErrorKind::ConnectionRefused),
            "{}",
            closed.id
        );
    }
    // Node ports are for the cluster's machines, also those of what is needed.
    for process in cluster.processes("db") {
        for port in process.report.ports.values() {
            let node = (0..2).find(|it| cluster.worker(*it).name() == process.node.as_str());
            let address = SocketAddr::from((cluster.worker(node.unwrap()).ip(), *port));
            for of_web in &web {
                assert!(asks(of_web, address).is_err(), "{address}");
                assert!(sends(of_web, address).is_err(), "{address}");
            }
        }
    }

    let removed = cluster.curl(&["-X", "DELETE"], "/v1/services/db");
    assert_eq!(removed.status, 409, "{removed:?}");
    assert!(removed.body.contains("needed by web"), "{removed:?}");
    cluster.patch("db", "{\"concurrency\": 1}");
    cluster.wait("one process of db to be left", || {
        let left = cluster.processes("db");
        let reached = asks(&web[0], at(8080)).ok()?;
        (left.len() == 1 && reached == [left[0].report.id.to_string()].into()).then_some(())
    });
}
