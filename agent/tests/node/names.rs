//! Processes reach the services that they need, by name and by address, and nothing else.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use nix::sched::{CloneFlags, setns};
use tucano_api::{
    agent::DesiredProcess,
    ids::ProcessId,
    names::{NamedEndpoint, NamedPort, NamedService, Names},
    service::Protocol,
};

use crate::node::{Node, on_a_node, output, process};

const DB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(100, 80, 0, 1), 8080);
const DB_UDP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(100, 80, 0, 1), 5353);
const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(100, 80, 0, 2), 8080);
const NAME_SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(172, 31, 0, 1), 53);
const WAIT: Duration = Duration::from_secs(2);

/// A process of a service that runs the sample image.
fn of(service: &str, number: u64, more: &str) -> DesiredProcess {
    let mut process = process("hello", number, more);
    process.config.name = service.parse().unwrap();
    process.id = ProcessId::new(&process.config.name, number);
    process
}

fn service(name: &str, address: SocketAddrV4, processes: &[u64]) -> NamedService {
    let service = name.parse().unwrap();
    let endpoint = |number: &u64| NamedEndpoint {
        process: ProcessId::new(&service, *number),
        node: "w1".parse().unwrap(),
        slot: None,
        weight: 100,
        ip: Ipv4Addr::LOCALHOST.into(),
        node_ports: vec![Some(1), Some(2)],
    };
    let port = |name: &str, port, protocol| NamedPort {
        name: name.parse().unwrap(),
        port,
        protocol,
    };
    NamedService {
        leaving: Vec::new(),
        endpoints: processes.iter().map(endpoint).collect(),
        service,
        address: *address.ip(),
        slots: Vec::new(),
        nearest: false,
        ports: vec![
            port("dns", 5353, Protocol::Udp),
            port("http", 8080, Protocol::Http),
        ],
    }
}

fn names(version: &str, db: &[u64]) -> Names {
    Names {
        version: version.to_owned(),
        whole: true,
        services: vec![service("db", DB, db), service("web", WEB, &[2])],
        gone: Vec::new(),
    }
}

/// Runs something in a process's network namespace.
fn within<T: Send + 'static>(
    node: &Node,
    id: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let network = File::open(format!("/proc/{}/ns/net", node.pid(id))).unwrap();
    let thread = std::thread::spawn(move || {
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    thread.join().unwrap()
}

fn connect(to: SocketAddrV4) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::V4(to), WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    Ok(stream)
}

/// Which process answers a request.
fn asked(node: &Node, id: &str, to: SocketAddrV4) -> Result<String, ErrorKind> {
    let ask = move || -> std::io::Result<String> {
        let mut stream = connect(to)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = within(node, id, ask).map_err(|error| error.kind())?;
    let (_, found) = text.split_once("process=").unwrap();
    Ok(found.split_whitespace().next().unwrap().to_owned())
}

/// What a datagram is answered with.
fn echoed(node: &Node, id: &str, to: SocketAddrV4) -> Result<String, ErrorKind> {
    let send = move || -> std::io::Result<String> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(WAIT))?;
        socket.connect(to)?;
        socket.send(b"hello")?;
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    within(node, id, send).map_err(|error| error.kind())
}

/// Answers datagrams within a process's network, until the test ends.
fn serve_udp(node: &Node, id: &'static str) {
    let socket = within(node, id, || UdpSocket::bind(("0.0.0.0", 5353)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(id.as_bytes(), from).ok();
        }
    });
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

/// The answer to a look-up, by its code and its records.
fn looked_up(
    node: &Node,
    id: &str,
    name: &str,
    kind: RecordType,
) -> Result<(ResponseCode, Vec<String>), ErrorKind> {
    let bytes = question(name, kind);
    let ask = move || -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(WAIT))?;
        socket.connect(NAME_SERVER)?;
        socket.send(&bytes)?;
        let mut buffer = vec![0; 4096];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    };
    let answer = within(node, id, ask).map_err(|error| error.kind())?;
    let answer = Message::from_vec(&answer).unwrap();
    let records = answer.answers.iter().map(|it| it.data.to_string());
    Ok((answer.metadata.response_code, records.collect()))
}

/// The same over TCP.
fn looked_up_by_tcp(node: &Node, id: &str, name: &str) -> Vec<String> {
    let bytes = question(name, RecordType::A);
    let ask = move || -> std::io::Result<Vec<u8>> {
        let mut stream = connect(NAME_SERVER)?;
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &bytes].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    let answer = Message::from_vec(&within(node, id, ask).unwrap()).unwrap();
    answer
        .answers
        .iter()
        .map(|it| it.data.to_string())
        .collect()
}

/// `db` with two processes, `web` that needs `db` and itself, and one that needs nothing.
async fn with_services(node: &Node) {
    node.controller.set_names(names("1", &[1]));
    let ports = "ports = { dns = { port = 5353, protocol = \"udp\" } }";
    let needs = "needs = [\"db\", \"web\"]";
    let all = vec![
        of("db", 1, ports),
        of("web", 2, needs),
        of("other", 3, ""),
        of("db", 4, ports),
    ];
    node.desire(1, all).await;
    for id in ["db-1", "web-2", "other-3", "db-4"] {
        node.wait_until_healthy(id).await;
    }
    serve_udp(node, "db-1");
    serve_udp(node, "db-4");
    node.until_it_holds("web-2 reaches db", |node| {
        asked(node, "web-2", DB) == Ok("db-1".to_owned())
    })
    .await;
}

#[test]
fn a_process_reaches_what_it_needs_and_nothing_else() {
    on_a_node("", async |node| {
        with_services(&node).await;
        assert_eq!(asked(&node, "web-2", DB).unwrap(), "db-1");
        assert_eq!(echoed(&node, "web-2", DB_UDP).unwrap(), "db-1");
        assert_eq!(asked(&node, "web-2", WEB).unwrap(), "web-2", "itself");
        for id in ["other-3", "db-1"] {
            let refused = asked(&node, id, DB).unwrap_err();
            assert_eq!(refused, ErrorKind::ConnectionRefused, "{id}");
            assert!(echoed(&node, id, DB_UDP).is_err());
        }
        let unserved = SocketAddrV4::new(*DB.ip(), 81);
        let refused = asked(&node, "web-2", unserved).unwrap_err();
        assert_eq!(refused, ErrorKind::ConnectionRefused);
        // A neighbour's own address is out of reach for those that need it, too.
        for last in 2..=5 {
            let neighbour = SocketAddrV4::new(Ipv4Addr::new(172, 31, 0, last), 8080);
            let own = asked(&node, "web-2", neighbour);
            assert!(own.is_err() || own == Ok("web-2".to_owned()), "{neighbour}");
        }

        let found = |id, name, kind| looked_up(&node, id, name, kind).unwrap();
        let address = vec!["100.80.0.1".to_owned()];
        let (ok, unknown) = (ResponseCode::NoError, ResponseCode::NXDomain);
        assert_eq!(
            found("web-2", "db.internal.", RecordType::A),
            (ok, address.clone())
        );
        assert_eq!(
            found("web-2", "db.internal.", RecordType::AAAA),
            (ok, vec![])
        );
        assert_eq!(
            found("other-3", "db.internal.", RecordType::A),
            (unknown, vec![])
        );
        assert_eq!(looked_up_by_tcp(&node, "web-2", "db.internal."), address);
        let environment = std::fs::read(format!("/proc/{}/environ", node.pid("web-2"))).unwrap();
        let environment = String::from_utf8(environment).unwrap();
        assert!(
            environment.contains("DB_HOST=db.internal\0DB_PORT=8080\0"),
            "{environment}"
        );
        let resolv_conf = std::fs::read_to_string(node.data("processes/other-3/etc/resolv.conf"));
        assert!(
            resolv_conf
                .unwrap()
                .starts_with("nameserver 172.31.0.1\nsearch internal\n")
        );
        // Nothing else of that address is reachable.
        let listener = std::net::TcpListener::bind("0.0.0.0:9999").unwrap();
        let other = SocketAddrV4::new(*NAME_SERVER.ip(), 9999);
        assert!(within(&node, "web-2", move || connect(other)).is_err());
        drop(listener);
        let closed = || output("ip", &["route", "show", "100.80.0.0/16"]);
        assert!(closed().starts_with("prohibit"), "{}", closed());
        node.remove_all(2).await;
        assert_eq!(closed(), "");
    });
}

#[test]
fn connections_end_with_their_endpoint_and_with_the_need() {
    on_a_node("", async |node| {
        with_services(&node).await;
        let open = within(&node, "web-2", || connect(DB).unwrap());
        node.controller.set_names(names("2", &[4]));
        node.until_it_holds("another endpoint answers", |node| {
            asked(node, "web-2", DB) == Ok("db-4".to_owned())
        })
        .await;
        assert_eq!(echoed(&node, "web-2", DB_UDP).unwrap(), "db-4");
        node.until_it_holds("connections to the other end", |_| is_reset(&open))
            .await;

        let open = within(&node, "web-2", || connect(DB).unwrap());
        let pid = node.pid("web-2");
        let ports = "ports = { dns = { port = 5353, protocol = \"udp\" } }";
        let all = vec![of("db", 4, ports), of("web", 2, "needs = [\"web\"]")];
        node.desire(2, all).await;
        node.until_it_holds("the need is taken back", |node| {
            asked(node, "web-2", DB) == Err(ErrorKind::ConnectionRefused)
        })
        .await;
        assert_eq!(node.pid("web-2"), pid, "nothing was restarted");
        node.until_it_holds("connections that are not needed end", |_| is_reset(&open))
            .await;
        node.remove_all(3).await;
    });
}

/// Whether the other end has ended a connection.
fn is_reset(mut stream: &TcpStream) -> bool {
    let sent = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut byte = [0];
    let read = sent.and_then(|()| stream.read(&mut byte));
    let ends = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    read.is_err_and(|error| ends.contains(&error.kind()))
}

#[test]
fn rules_that_are_flushed_are_put_back_and_an_agents_restart_costs_a_retry() {
    on_a_node("", async |mut node| {
        with_services(&node).await;
        output("nft", &["flush", "ruleset"]);
        // Closed all the same: no rule, no way out.
        let open = asked(&node, "other-3", DB);
        assert!(open.is_err(), "{open:?}");
        node.until_it_holds("the rules are back", |node| {
            asked(node, "web-2", DB) == Ok("db-1".to_owned())
        })
        .await;
        node.wait_for("a note of it", |report| {
            let mut notes = report.notes.iter();
            notes
                .find(|note| note.contains("and they were put back, 1 times"))
                .cloned()
        })
        .await;

        node.kill_agent();
        let silent = looked_up(&node, "web-2", "db.internal.", RecordType::A).unwrap_err();
        assert_eq!(
            silent,
            ErrorKind::WouldBlock,
            "not refused, so that clients ask again"
        );
        assert_eq!(
            asked(&node, "web-2", DB).unwrap(),
            "db-1",
            "without an agent"
        );
        node.controller.set_names(Names::default());
        node.start_agent().await;
        let again = looked_up(&node, "web-2", "db.internal.", RecordType::A).unwrap();
        assert_eq!(
            again.1,
            ["100.80.0.1"],
            "from what the agent before has stored"
        );
        assert_eq!(
            asked(&node, "other-3", DB).unwrap_err(),
            ErrorKind::ConnectionRefused
        );
        node.remove_all(2).await;
    });
}

/// Another worker, with one endpoint of `db` at its node port.
struct Far {
    holder: std::process::Child,
}

const FAR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 2), 20_001);

impl Far {
    fn start() -> Self {
        let mut holder = std::process::Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec sleep infinity"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It has its network once it writes.
        holder
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut [0])
            .unwrap();
        let pid = holder.id().to_string();
        let ip = |text: &str| output("ip", &text.split(' ').collect::<Vec<_>>());
        ip(&format!(
            "link add far0 type veth peer name eth0 netns {pid}"
        ));
        ip("address add 10.9.0.1/24 dev far0");
        ip("link set far0 up");
        let far = Self { holder };
        far.within(|| {
            output("ip", &["address", "add", "10.9.0.2/24", "dev", "eth0"]);
            output("ip", &["link", "set", "eth0", "up"]);
        });
        let listener = far.within(|| std::net::TcpListener::bind(FAR).unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut buffer = [0; 200];
                    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\n\r\nprocess=far ";
                        if stream.write_all(answer).is_err() || !buffer.starts_with(b"KEEP") {
                            break;
                        }
                    }
                });
            }
        });
        far
    }

    fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let network = File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        let thread = std::thread::spawn(move || {
            setns(network, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        output("ip", &["link", "delete", "far0"]);
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

/// `db` with processes of this node and one of another, of which the nearest are wanted or not.
fn near_and_far(version: &str, near: &[u64], nearest: bool) -> Names {
    let mut db = service("db", DB, near);
    db.nearest = nearest;
    db.endpoints.push(NamedEndpoint {
        process: "db-9".parse().unwrap(),
        node: "w2".parse().unwrap(),
        slot: None,
        weight: 100,
        ip: (*FAR.ip()).into(),
        node_ports: vec![None, Some(FAR.port())],
    });
    Names {
        services: vec![db, service("web", WEB, &[2])],
        ..names(version, &[])
    }
}

#[test]
fn the_nearest_process_answers_while_there_is_one() {
    on_a_node("", async |node| {
        let far = Far::start();
        with_services(&node).await;
        let answering = |node: &Node| -> std::collections::BTreeSet<String> {
            let answers = (0..40).map(|_| asked(node, "web-2", DB).unwrap());
            answers.collect()
        };
        let learn = async |version: &str, near: &[u64], nearest, expected: &[&str]| {
            node.controller
                .set_names(near_and_far(version, near, nearest));
            let expected = expected.iter().map(|it| (*it).to_owned()).collect();
            node.until_it_holds("the expected processes answer", |node| {
                answering(node) == expected
            })
            .await;
        };
        learn("2", &[], true, &["far"]).await;
        let mut open = within(&node, "web-2", || connect(DB).unwrap());
        let mut buffer = [0; 200];
        let mut keeps = || {
            let written = open.write_all(b"KEEP");
            written.is_ok() && open.read(&mut buffer).is_ok_and(|length| length > 0)
        };
        assert!(keeps());
        learn("3", &[1], true, &["db-1"]).await;
        assert!(keeps(), "connections to what is healthy stay");
        learn("4", &[1, 4], true, &["db-1", "db-4"]).await;
        learn("5", &[1], false, &["db-1", "far"]).await;
        learn("6", &[1], true, &["db-1"]).await;
        assert!(keeps());
        // The last near one leaves.
        learn("7", &[], true, &["far"]).await;
        drop(far);
        node.remove_all(2).await;
    });
}
