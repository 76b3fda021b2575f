//! `tucano dev`: a whole cluster on this machine, and nothing of it afterwards.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tucano_testkit::{needs, programs, wait_for, wait_until};
use tucano_tests::{CLUSTER, images, images::text};

const PATIENCE: Duration = Duration::from_secs(90);

/// A `tucano dev` of two workers.
struct Dev {
    api: SocketAddr,
    balancer: SocketAddr,
    directory: TempDir,
    child: Child,
}

fn free_address() -> SocketAddr {
    // Released before use: other clusters of this test hold theirs, and nothing else takes ports.
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

impl Dev {
    fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tucano-dev-test-")
            .tempdir()
            .unwrap();
        let (api, balancer) = (free_address(), free_address());
        let child = Self::spawn(api, balancer, &directory);
        let dev = Self {
            api,
            balancer,
            directory,
            child,
        };
        dev.wait_for_workers();
        dev
    }

    fn spawn(api: SocketAddr, balancer: SocketAddr, directory: &TempDir) -> Child {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(directory.path().join("dev.log"))
            .unwrap();
        Command::new(programs().join("tucano"))
            .args([
                "dev",
                "--workers",
                "2",
                "--api",
                &api.to_string(),
                "--balancer",
                &balancer.to_string(),
            ])
            .args(["--data", text(&directory.path().join("data"))])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn wait_for_workers(&self) {
        wait_for(&format!("two workers; {}", self.log()), PATIENCE, || {
            let nodes = self.tucano(&["nodes", "--json"]);
            (nodes.0 && nodes.1.matches("\"alive\"").count() >= 2).then_some(())
        });
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("dev.log")).unwrap_or_default()
    }

    /// Runs the command line against this cluster: whether it succeeded, and what it said.
    fn tucano(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(programs().join("tucano"))
            .args(["--api", &format!("http://{}", self.api)])
            .args(arguments)
            .output()
            .unwrap();
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    fn deploy_hello(&self, concurrency: u32) {
        let config = self.directory.path().join("hello.toml");
        let image = images::sample("hello");
        let settings = format!(
            "name = \"hello\"\nconcurrency = {concurrency}\nport = 8080\nmemory = \"32MiB\"\nimage = \"{}\"\n",
            image.display()
        );
        std::fs::write(&config, settings).unwrap();
        let (ok, said) = self.tucano(&["deploy", text(&config)]);
        assert!(ok, "{said}\n{}", self.log());
    }

    fn request(&self) -> Option<String> {
        use std::io::Write;
        let mut stream = TcpStream::connect(self.balancer).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    }

    fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self.child.wait().unwrap();
    }

    /// Processes, mounts and cgroups that mention this cluster's directory or belong to it.
    fn remains(&self) -> Vec<String> {
        let data = self.directory.path().join("data");
        let mut remains = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(text(&data)) {
                remains.push(format!("process: {command}"));
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        remains.extend(
            mounts
                .lines()
                .filter(|line| line.contains(text(&data)))
                .map(str::to_owned),
        );
        remains
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.signal(Signal::TERM);
        }
    }
}

#[test]
fn two_clusters_run_side_by_side_and_ctrl_c_removes_each() {
    if !needs(&CLUSTER) {
        return;
    }
    let (mut first, mut second) = (Dev::start(), Dev::start());
    first.deploy_hello(3);
    second.deploy_hello(1);
    for dev in [&first, &second] {
        wait_for("an answer", PATIENCE, || dev.request());
    }
    first.signal(Signal::INT);
    wait_until("the first to be gone", PATIENCE, || {
        first.remains().is_empty()
    });
    assert!(second.request().is_some());
    second.signal(Signal::INT);
    wait_until("the second to be gone", PATIENCE, || {
        second.remains().is_empty()
    });
}

#[test]
fn after_kill_9_the_next_start_removes_what_was_left() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut dev = Dev::start();
    dev.deploy_hello(2);
    wait_for("an answer", PATIENCE, || dev.request());
    dev.signal(Signal::KILL);
    dev.child = Dev::spawn(dev.api, dev.balancer, &dev.directory);
    dev.wait_for_workers();
    dev.deploy_hello(2);
    wait_for("an answer", PATIENCE, || dev.request());
    dev.signal(Signal::TERM);
    wait_until("all to be gone", PATIENCE, || dev.remains().is_empty());
}
