//! A controller with prepared answers, which records its requests.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A request as received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// Such as `GET /v1/state`.
    pub(crate) line: String,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Controller {
    /// Answers each request with the status and body that `answer` gives for its line and its number, from 0.
    pub(crate) fn start(answer: impl Fn(&str, usize) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let controller = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
        };
        let requests = controller.requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let request = read(&stream);
                let number = requests.lock().unwrap().len();
                let (status, body) = answer(&request.line, number);
                requests.lock().unwrap().push(request);
                reply(stream, status, &body);
            }
        });
        controller
    }

    /// Always the same answer.
    pub(crate) fn answering(status: u16, body: &str) -> Self {
        let body = body.to_owned();
        Self::start(move |_, _| (status, body.clone()))
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Request {
    let mut reader = BufReader::new(stream);
    let mut request = Request::default();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    request.line = line
        .rsplit_once(' ')
        .map(|(line, _)| line.to_owned())
        .unwrap_or_default();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        request.headers += &line.to_lowercase();
    }
    let header = |name: &str| {
        request
            .headers
            .lines()
            .find_map(|line| line.strip_prefix(name))
    };
    if let Some(length) = header("content-length: ") {
        request.body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut request.body).unwrap();
    } else if header("transfer-encoding: ").is_some() {
        request.body = read_chunks(&mut reader);
    }
    request
}

fn read_chunks(reader: &mut impl BufRead) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

/// A client may have closed the connection.
fn reply(mut stream: TcpStream, status: u16, body: &str) {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()))
        .ok();
}
