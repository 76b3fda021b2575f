use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
};

use tempfile::TempDir;
use tokio::sync::Notify;
use tucano_testkit::wait_for;

use crate::support::{Client, Controller, Origin, PATIENCE, get, hello, soon, wait_until};

/// A running `tucano_balancerd` with its own directory.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(directory: &TempDir, more: &[&str]) -> Self {
        Self::of(command(directory, more))
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = log.lines();
        let line = lines.find_map(|line| Some(line.ok()?.split_once("address\":\"")?.1.to_owned()));
        // Further log lines must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        let address = line.unwrap().split('"').next().unwrap().parse().unwrap();
        Self { child, address }
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        wait_for("the balancer to end", PATIENCE, || {
            self.child.try_wait().unwrap()
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn command(directory: &TempDir, more: &[&str]) -> Command {
    command_at(directory, "127.0.0.1:0", more)
}

fn command_at(directory: &TempDir, listen: &str, more: &[&str]) -> Command {
    let file = |name: &str| directory.path().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tucano_balancerd"));
    command
        .args(["--log-format", "json", "--listen", listen, "--follow"])
        .arg(file("ctl.sock"))
        .arg("--lock")
        .arg(file("balancer.lock"))
        .arg("--routes")
        .arg(file("routes.json"))
        .args(more)
        .stdin(Stdio::null());
    command
}

/// A directory for the program, with a controller that routes `hello` to this process.
fn routed_to(origin: &Origin) -> (TempDir, Controller) {
    let directory = tempfile::tempdir().unwrap();
    let controller = Controller::start(directory.path().join("ctl.sock"));
    controller.publish(hello(&[origin]));
    (directory, controller)
}

async fn port_closed(program: &Program) {
    wait_until("the port to be closed", || {
        std::net::TcpStream::connect(program.address).is_err()
    })
    .await;
}

async fn serving(program: &Program) {
    soon("routes", async {
        while get(program.address, "nobody.localhost", "/").await.status != 404 {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_request_of_an_accepted_connection_is_answered_after_sigterm() {
    let origin = Origin::tagged("a").await;
    let (directory, _controller) = routed_to(&origin);
    let mut program = Program::start(&directory, &["--first-request-timeout", "1h"]);
    serving(&program).await;
    let mut client = Client::connect(program.address).await;
    // Clients are accepted in order.
    get(program.address, "hello.localhost", "/").await;
    program.terminate();
    port_closed(&program).await;
    client
        .send("GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")
        .await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "a"));
    assert_eq!(client.rest().await, b"", "it takes no second request");
    assert!(program.ended().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_report_says_that_the_balancer_has_left() {
    let origin = Origin::tagged("a").await;
    let (directory, controller) = routed_to(&origin);
    let mut program = Program::start(&directory, &[]);
    serving(&program).await;
    program.terminate();
    assert!(program.ended().success());
    let reports = controller.reports();
    let leaving: Vec<bool> = reports.iter().map(|report| report.leaving).collect();
    assert_eq!(leaving.iter().position(|it| *it), Some(leaving.len() - 1));
    let ids: std::collections::BTreeSet<_> = reports.iter().map(|it| &it.balancer).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_requests_and_exits_with_0() {
    let go_on = Arc::new(Notify::new());
    let origin = Origin::tagged_on(&go_on, "done").await;
    let (directory, _controller) = routed_to(&origin);
    let mut program = Program::start(&directory, &[]);
    serving(&program).await;
    let mut idle = Client::connect(program.address).await;
    let mut client = Client::connect(program.address).await;
    client
        .send("GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")
        .await;
    wait_until("the request to be under way", || origin.seen().len() == 1).await;
    program.terminate();
    assert_eq!(idle.rest().await, b"", "idle connections are closed");
    port_closed(&program).await;
    assert!(
        program.child.try_wait().unwrap().is_none(),
        "it waits for the request"
    );
    go_on.notify_one();
    let reply = client.reply().await;
    assert_eq!(reply.body, "done");
    assert_eq!(program.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_has_a_timeout() {
    let origin = Origin::tagged_on(&Arc::new(Notify::new()), "done").await;
    let (directory, _controller) = routed_to(&origin);
    let mut program = Program::start(&directory, &["--drain-timeout", "100ms"]);
    serving(&program).await;
    let mut client = Client::connect(program.address).await;
    client
        .send("GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")
        .await;
    wait_until("the request to be under way", || origin.seen().len() == 1).await;
    program.terminate();
    assert_eq!(program.ended().code(), Some(0));
    assert_eq!(client.rest().await, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_admits_one_instance_and_is_released_by_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Program::start(&directory, &[]);
    let lock = directory.path().join("balancer.lock");
    let pid = first.child.id().to_string();
    assert_eq!(fs::read_to_string(&lock).unwrap().trim(), pid);
    let second = command(&directory, &[]).output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    let log = String::from_utf8(second.stderr).unwrap();
    assert!(
        log.contains(&format!("another balancer (process {pid}) is running")),
        "{log}"
    );
    first.child.kill().unwrap();
    first.ended();
    let third = Program::start(&directory, &[]);
    assert_eq!(
        fs::read_to_string(&lock).unwrap().trim(),
        third.child.id().to_string()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_a_controller_serves_at_once() {
    let origin = Origin::tagged("ok").await;
    let (directory, controller) = routed_to(&origin);
    let mut program = Program::start(&directory, &[]);
    wait_until("the routes to be kept", || {
        directory.path().join("routes.json").exists()
    })
    .await;
    controller.kill();
    program.child.kill().unwrap();
    program.ended();
    let program = Program::start(&directory, &[]);
    assert_eq!(
        get(program.address, "hello.localhost", "/").await.body,
        "ok"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listening_socket_can_be_inherited() {
    let origin = Origin::tagged("ok").await;
    let (directory, _controller) = routed_to(&origin);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = command(&directory, &["--listen", "stdin"]);
    let child = command
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _program = Program { child, address };
    soon("an answer", async {
        while get(address, "hello.localhost", "/").await.body != "ok" {}
    })
    .await;
}

#[test]
fn an_unusable_listener_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (listen, reason) in [
        (address.as_str(), address.as_str()),
        ("stdin", "not a listening TCP socket"),
    ] {
        let output = command(&directory, &["--listen", listen]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(reason), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_socket_serves_metrics_to_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let origin = Origin::tagged("ok").await;
    let (directory, _controller) = routed_to(&origin);
    let socket = directory.path().join("admin.sock");
    let program = Program::start(&directory, &["--admin", socket.to_str().unwrap()]);
    serving(&program).await;
    assert_eq!(
        get(program.address, "hello.localhost", "/").await.body,
        "ok"
    );
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    for line in [
        "# TYPE tucano_balancer_responses counter",
        "tucano_balancer_responses_total{service=\"hello\",status=\"2xx\"} 1",
        "tucano_balancer_in_flight{service=\"hello\"} 0",
        "# EOF",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_out_of_descriptors_is_503_ejects_no_process_and_recovers() {
    let origin = Origin::tagged("ok").await;
    let (directory, _controller) = routed_to(&origin);
    let program = Program::of(limited(&command(&directory, &[])));
    serving(&program).await;
    let mut client = Client::connect(program.address).await;
    let request = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
    client.send(request.replace("hello", "nobody")).await;
    assert_eq!(client.reply().await.status, 404);
    // More connections than descriptors: these take all that are free.
    let mut others = Vec::new();
    for _ in 0..60 {
        others.push(Client::connect(program.address).await);
    }
    let reply = soon("descriptors to be used up", async {
        loop {
            client.send(request).await;
            let reply = client.reply().await;
            if reply.status != 200 {
                return reply;
            }
        }
    })
    .await;
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert_eq!(
        reply.body,
        "the balancer has no connections left, try again later\n"
    );
    drop(others);
    soon("it to recover", async {
        while get(program.address, "hello.localhost", "/").await.status != 200 {}
    })
    .await;
}

/// The same command with few descriptors.
fn limited(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    limited
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_survives_a_closed_log_pipe() {
    let (a, b) = (Origin::tagged("a").await, Origin::tagged("b").await);
    let directory = tempfile::tempdir().unwrap();
    let controller = Controller::start(directory.path().join("ctl.sock"));
    controller.publish(hello(&[&a]));
    let (reader, writer) = std::io::pipe().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = command(&directory, &["--listen", "stdin"]);
    let child = command
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stderr(writer)
        .spawn()
        .unwrap();
    // The command holds the pipe's other end.
    drop(command);
    let mut program = Program { child, address };
    drop(reader);
    for (origins, body) in [([&a], "a"), ([&b], "b"), ([&a], "a")] {
        controller.publish(hello(&origins));
        soon("an answer by the new routes", async {
            while get(address, "hello.localhost", "/").await.body != body {}
        })
        .await;
    }
    assert!(program.child.try_wait().unwrap().is_none());
}

/// A detached balancer on a socket that the test keeps open, as a service manager does.
fn detached(directory: &TempDir, listener: &std::net::TcpListener) -> Program {
    let more = ["--detach-draining", "--drain-timeout", "60s"];
    let mut command = command_at(directory, "stdin", &more);
    command.stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
    Program::of(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_balancer_keeps_no_client_waiting_while_it_drains() {
    let go_on = Arc::new(Notify::new());
    let origin = Origin::tagged_on(&go_on, "done").await;
    let (directory, _controller) = routed_to(&origin);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut first = detached(&directory, &listener);
    serving(&first).await;
    let mut client = Client::connect(first.address).await;
    client
        .send("GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")
        .await;
    wait_until("the request to be in flight", || origin.seen().len() == 1).await;
    first.terminate();
    assert!(first.ended().success(), "the program ends at once");
    let second = detached(&directory, &listener);
    serving(&second).await;
    // The one that drains does not keep the address: another socket can be bound to it.
    drop(second);
    drop(listener);
    soon("the address to be free", async {
        while std::net::TcpListener::bind(first.address).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    go_on.notify_one();
    assert_eq!(client.reply().await.body, "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_balancer_that_does_not_drain_ends_with_its_program() {
    let origin = Origin::tagged("a").await;
    let (directory, _controller) = routed_to(&origin);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut first = detached(&directory, &listener);
    serving(&first).await;
    first.child.kill().unwrap();
    first.ended();
    let lock = directory.path().join("balancer.lock");
    wait_until("the lock to be released", || !is_locked(&lock)).await;
    let second = detached(&directory, &listener);
    serving(&second).await;
}

/// New clients, one after the other, until `stop`; each gets an answer.
async fn clients(address: SocketAddr, stop: Arc<std::sync::atomic::AtomicBool>) -> usize {
    let mut count = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        assert_eq!(get(address, "nobody.localhost", "/").await.status, 404);
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_balancer_serves_while_the_last_one_drains() {
    let go_on = Arc::new(Notify::new());
    let origin = Origin::tagged_on(&go_on, "done").await;
    let (directory, _controller) = routed_to(&origin);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let more = ["--drain-timeout", "60s", "--handover-timeout", "60s"];
    let start = || Program::of(command_at(&directory, &address.to_string(), &more));
    let mut first = start();
    serving(&first).await;
    let mut client = Client::connect(address).await;
    client
        .send("GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")
        .await;
    wait_until("the request to be in flight", || origin.seen().len() == 1).await;
    let stop = Arc::default();
    let others = tokio::spawn(clients(address, Arc::clone(&stop)));

    first.terminate();
    let lock = directory.path().join("balancer.lock");
    wait_until("the lock to be released", || !is_locked(&lock)).await;
    let second = start();
    serving(&second).await;
    assert!(first.child.try_wait().unwrap().is_none(), "it drains");
    go_on.notify_one();
    assert_eq!(client.reply().await.body, "done");
    assert!(first.ended().success());
    serving(&second).await;

    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(others.await.unwrap() > 0);
    second.terminate();
}

/// Whether anybody has a lock on the file. Taking it, to find out, would look like a successor.
fn is_locked(path: &Path) -> bool {
    let inode = format!(":{} ", fs::metadata(path).unwrap().ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains(&inode))
}

#[test]
fn two_balancers_do_not_share_an_address() {
    let directory = tempfile::tempdir().unwrap();
    let first = Program::start(&directory, &[]);
    let other = tempfile::tempdir().unwrap();
    let output = command_at(&other, &first.address.to_string(), &[])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("cannot listen on"), "{log}");
}
