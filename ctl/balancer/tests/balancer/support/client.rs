//! A client that writes and reads raw bytes.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::soon;

/// One connection of a client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

/// A response: its head as text, its body decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next response to a request that was not HEAD.
    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.head().await;
        let length = header(&head, "content-length").map(|length| length.parse().unwrap());
        let body = match length {
            Some(length) => self.exactly(length).await,
            None if header(&head, "transfer-encoding").is_some() => self.chunks().await,
            None if head.starts_with("HTTP/1.1 204") => Vec::new(),
            None => self.rest().await,
        };
        Reply {
            status: head[9..12].parse().unwrap(),
            head,
            body: String::from_utf8(body).unwrap(),
        }
    }

    /// The next head, with its empty line.
    pub(crate) async fn head(&mut self) -> String {
        let head = self.read_until(b"\r\n\r\n").await;
        String::from_utf8(head).unwrap()
    }

    /// Everything up to and including `end`.
    pub(crate) async fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let found = self.received.windows(end.len()).position(|w| w == end);
            if let Some(place) = found {
                let rest = self.received.split_off(place + end.len());
                return std::mem::replace(&mut self.received, rest);
            }
            let more = soon("more of a response", self.read_more()).await;
            let so_far = String::from_utf8_lossy(&self.received).into_owned();
            assert!(more, "the connection ended after {so_far:?}");
        }
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(soon("more of a body", self.read_more()).await, "truncated");
        }
        let rest = self.received.split_off(length);
        std::mem::replace(&mut self.received, rest)
    }

    /// Everything until the connection ends, by a close or a reset.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while soon("the end of a connection", self.read_more()).await {}
        std::mem::take(&mut self.received)
    }

    /// Discards what has been received but not consumed; returns its length.
    pub(crate) fn rest_of_buffer(&mut self) -> usize {
        std::mem::take(&mut self.received).len()
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.read_until(b"\r\n").await).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            if size == 0 {
                self.read_until(b"\r\n").await;
                return body;
            }
            body.extend(self.exactly(size).await);
            self.read_until(b"\r\n").await;
        }
    }

    async fn read_more(&mut self) -> bool {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(len) => {
                self.received.extend_from_slice(&buffer[..len]);
                true
            }
        }
    }
}

impl Reply {
    /// Value of the header `name` (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// Value of the header `name` (lower case) in a head.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// Sends `bytes` over a connection of their own; gives the first response.
pub(crate) async fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Reply {
    let mut client = Client::connect(address).await;
    client.send(bytes).await;
    client.reply().await
}

/// A GET over a connection of its own.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Reply {
    ask(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    )
    .await
}
