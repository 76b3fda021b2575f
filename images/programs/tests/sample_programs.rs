//! The sample programs from the view of a client and of their runner.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// A running program, ended when the test ends.
struct Sample {
    child: Child,
    port: u16,
}

impl Sample {
    fn start(program: &str, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        let mut child = command
            .env("PORT", "0")
            .envs(env.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                line.unwrap()
                    .strip_prefix("listening on port ")?
                    .parse()
                    .ok()
            })
            .expect("the program listens");
        // Its stderr must not fill up while it runs.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }

    fn hello() -> Self {
        let who = [("TUCANO_SERVICE", "hi"), ("TUCANO_REVISION", "2")];
        Self::start(
            env!("CARGO_BIN_EXE_hello"),
            &[who[0], who[1], ("TUCANO_NODE", "w1")],
        )
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// Sends a whole request that closes the connection; the answer as it came.
    fn ask(&self, request: &str) -> String {
        let mut connection = self.connect();
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n"))
    }

    fn terminate(&mut self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        // It may have ended already, as some tests ask it to.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn hello_reports_its_identity() {
    let hello = Sample::hello();
    let answer = hello.get("/");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nhello from service=hi revision=2 process=- node=w1\n"),
        "{answer}"
    );
    assert!(hello.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(hello.get("/env").contains("\nTUCANO_SERVICE=hi\n"));
    assert!(hello.get("/nothing").starts_with("HTTP/1.1 404"));
    assert!(hello.get("/slow?ms=1").ends_with("node=w1\n"));
}

#[test]
fn a_connection_serves_two_requests() {
    let hello = Sample::hello();
    let both = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
                GET /headers?a=b HTTP/1.1\r\nX-Color: red\r\nConnection: close\r\n\r\n";
    let answer = hello.ask(both);
    assert!(
        answer.starts_with("HTTP/1.1 404"),
        "POST / is not known: {answer}"
    );
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("\nGET /headers?a=b\nX-Color: red\n"),
        "{answer}"
    );
    assert!(
        answer.contains("\nclient 127.0.0.1:") || answer.contains("\nclient [::ffff:127.0.0.1]:")
    );
}

#[test]
fn a_body_is_echoed_in_either_framing() {
    let hello = Sample::hello();
    let head = "POST /echo HTTP/1.1\r\nConnection: close\r\n";
    let sized = hello.ask(&format!("{head}Content-Length: 5\r\n\r\nfjord"));
    let chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\nfjo\r\n2;x=y\r\nrd\r\n0\r\n\r\n";
    let chunked = hello.ask(&format!("{head}{chunked}"));
    assert!(sized.ends_with("5\r\nfjord\r\n0\r\n\r\n"), "{sized}");
    assert!(
        chunked.ends_with("3\r\nfjo\r\n2\r\nrd\r\n0\r\n\r\n"),
        "{chunked}"
    );
    let continued = hello.ask(&format!(
        "{head}Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx"
    ));
    assert!(
        continued.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"),
        "{continued}"
    );
}

#[test]
fn ten_pieces_are_streamed() {
    let answer = Sample::hello().get("/stream");
    assert_eq!(answer.matches(" of 10\n").count(), 10, "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[test]
fn an_upgraded_connection_echoes() {
    let hello = Sample::hello();
    let mut connection = hello.connect();
    let request = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tucano-echo\r\n\r\nping";
    connection.write_all(request.as_bytes()).unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("\r\nUpgrade: tucano-echo\r\n") && answer.ends_with("\r\n\r\nping"));
}

#[test]
fn a_running_request_is_finished_on_sigterm() {
    let mut hello = Sample::hello();
    let mut connection = hello.connect();
    // Its first piece shows that the request runs when the signal arrives.
    connection
        .write_all(b"GET /stream HTTP/1.1\r\n\r\n")
        .unwrap();
    let mut first = [0; 1];
    connection.read_exact(&mut first).unwrap();
    hello.terminate();
    let mut rest = String::new();
    connection.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("piece 10 of 10"), "{rest}");
    assert_eq!(hello.ended().code(), Some(0));
}

#[test]
fn a_crash_is_available_on_request() {
    let mut hello = Sample::hello();
    assert_eq!(hello.get("/crash"), "");
    assert_eq!(hello.ended().code(), Some(3));
}

#[test]
fn crash_loop_ends_with_one() {
    let output = Command::new(env!("CARGO_BIN_EXE_crash-loop"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("crash-loop")
    );
}

#[test]
fn slow_start_counts_early_requests() {
    let env = [("START", "listening"), ("START_DELAY_MS", "600000")];
    let early = Sample::start(env!("CARGO_BIN_EXE_slow-start"), &env);
    assert!(early.get("/healthz").starts_with("HTTP/1.1 503"));
    assert!(early.get("/").starts_with("HTTP/1.1 503"));
    let ready = Sample::start(env!("CARGO_BIN_EXE_slow-start"), &[("START_DELAY_MS", "1")]);
    assert!(ready.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(ready.get("/early").ends_with("\r\n\r\n0\n"));
}

#[test]
fn memory_hog_survives_without_a_limit() {
    let hog = Sample::start(env!("CARGO_BIN_EXE_memory-hog"), &[("HOG_MIB", "3")]);
    assert!(hog.get("/hog").ends_with("survived 3 MiB\n"));
}

#[test]
fn disk_hog_writes_with_and_without_a_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hog");
    let name = file.to_str().unwrap();
    let hog = env!("CARGO_BIN_EXE_disk-hog");
    let named = Sample::start(hog, &[("HOG_MIB", "3"), ("HOG_FILE", name)]);
    assert!(named.get("/hog").ends_with("written\n"));
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 3 << 20);
    let nameless = [("HOG_MIB", "3"), ("HOG_FILE", name), ("HOG_NAMELESS", "1")];
    let nameless = Sample::start(hog, &nameless);
    assert!(nameless.get("/hog").ends_with("written\n"));
    assert!(!file.exists());
}

#[test]
fn fork_bomb_reports_its_processes() {
    let bomb = Sample::start(env!("CARGO_BIN_EXE_fork-bomb"), &[("BOMB_PROCESSES", "3")]);
    assert!(
        bomb.get("/bomb")
            .ends_with("3 processes, then: as many as asked\n")
    );
}
