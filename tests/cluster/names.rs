//! Services find each other on one worker and across two: by what they need, and by nothing else.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use rustix::{fd::AsFd, thread::move_into_link_name_space};
use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options, images};

use crate::apis::first_pid_of;

const WAIT: Duration = Duration::from_secs(2);

/// A program of a process, as this machine numbers it.
fn pid_of(cluster: &Cluster, worker: usize, id: &str) -> String {
    let home = cluster
        .agent_data(worker)
        .join("processes")
        .join(id)
        .join("home");
    first_pid_of(&fs::read(home.join("supervisor.json")).unwrap())
}

/// A process of a service, and its network.
struct Container {
    id: String,
    worker: usize,
    network: File,
}

/// The processes of a service, by worker.
fn containers(cluster: &Cluster, service: &str) -> Vec<Container> {
    let processes = cluster.processes(service).into_iter();
    let mut all: Vec<_> = processes
        .map(|process| {
            let id = process.report.id.to_string();
            let mut workers = 0..2;
            let worker = workers.find(|it| cluster.worker(*it).name() == process.node.as_str());
            let worker = worker.unwrap();
            let pid = pid_of(cluster, worker, &id);
            let network = File::open(format!("/proc/{pid}/ns/net")).unwrap();
            Container {
                id,
                worker,
                network,
            }
        })
        .collect();
    all.sort_by_key(|it| it.worker);
    all
}

impl Container {
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let network = self.network.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), None).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    /// The processes that answer several requests.
    fn asks(&self, to: SocketAddr) -> Result<BTreeSet<String>, ErrorKind> {
        let ask = move || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&to, WAIT)?;
            stream.set_read_timeout(Some(WAIT))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        self.run(move || {
            (0..40)
                .map(|_| ask().map(|text| answered(&text)))
                .collect::<std::io::Result<_>>()
        })
        .map_err(|error| error.kind())
    }

    /// The processes that answer several datagrams.
    fn sends(&self, to: SocketAddr) -> Result<BTreeSet<String>, ErrorKind> {
        let send = move || -> std::io::Result<String> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(WAIT))?;
            socket.connect(to)?;
            socket.send(b"?")?;
            let mut buffer = [0; 100];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        self.run(move || (0..40).map(|_| send()).collect::<std::io::Result<_>>())
            .map_err(|error| error.kind())
    }

    /// Answers datagrams with its name.
    fn serves_udp(&self) {
        let socket = self.run(|| UdpSocket::bind(("0.0.0.0", 5353)).unwrap());
        let id = self.id.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 100];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(id.as_bytes(), from).ok();
            }
        });
    }
}

fn answered(text: &str) -> String {
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
        of_db.serves_udp();
    }
    let both: BTreeSet<String> = db.iter().map(|it| it.id.clone()).collect();
    // The first service of the first cluster has the first address.
    let at = |port| SocketAddr::from(([100, 80, 0, 1], port));
    for of_web in &web {
        cluster.wait("web to reach both processes of db", || {
            (of_web.asks(at(8080)).as_ref() == Ok(&both)).then_some(())
        });
        assert_eq!(of_web.sends(at(5353)).as_ref(), Ok(&both));
    }
    let web_at = SocketAddr::from(([100, 80, 0, 2], 8080));
    for closed in others.iter().chain(&db) {
        assert_eq!(
            closed.asks(at(8080)),
            Err(ErrorKind::ConnectionRefused),
            "{}",
            closed.id
        );
        assert!(closed.sends(at(5353)).is_err(), "{}", closed.id);
        assert_eq!(
            closed.asks(web_at),
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
                assert!(of_web.asks(address).is_err(), "{address}");
                assert!(of_web.sends(address).is_err(), "{address}");
            }
        }
    }

    let removed = cluster.curl(&["-X", "DELETE"], "/v1/services/db");
    assert_eq!(removed.status, 409, "{removed:?}");
    assert!(removed.body.contains("needed by web"), "{removed:?}");
    cluster.patch("db", "{\"concurrency\": 1}");
    cluster.wait("one process of db to be left", || {
        let left = cluster.processes("db");
        let reached = web[0].asks(at(8080)).ok()?;
        (left.len() == 1 && reached == [left[0].report.id.to_string()].into()).then_some(())
    });
}
