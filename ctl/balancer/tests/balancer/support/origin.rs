//! Processes: servers on TCP ports, well-behaved or not.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinSet},
};

/// A server on its own port. Dropping it ends it and its connections.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    task: AbortHandle,
}

/// One connection that an origin has accepted, with what was read from it.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Origin {
    /// Answers every request with `body`.
    pub(crate) async fn tagged(body: &'static str) -> Self {
        let length = body.len();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        Self::replying(response).await
    }

    /// Answers every request with these bytes.
    pub(crate) async fn replying(response: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let response = Arc::new(response);
        Self::serving(move |mut peer| {
            let response = response.clone();
            async move {
                while peer.request().await.is_some() {
                    peer.send((*response).as_ref()).await;
                }
            }
        })
        .await
    }

    /// Answers each request with `body`, after a notification.
    pub(crate) async fn tagged_on(go_on: &Arc<Notify>, body: &'static str) -> Self {
        let length = body.len();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        let (go_on, response) = (go_on.clone(), Arc::new(response));
        Self::serving(move |mut peer| {
            let (go_on, response) = (go_on.clone(), response.clone());
            async move {
                while peer.request().await.is_some() {
                    go_on.notified().await;
                    peer.send(response.as_bytes()).await;
                }
            }
        })
        .await
    }

    /// Handles every connection with `handle`; the connection closes when that returns.
    pub(crate) async fn serving<F, H>(handle: F) -> Self
    where
        F: Fn(Peer) -> H + Send + 'static,
        H: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, handle)
    }

    /// The same, on a socket that listens already.
    pub(crate) fn on<F, H>(listener: TcpListener, handle: F) -> Self
    where
        F: Fn(Peer) -> H + Send + 'static,
        H: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let all = seen.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(handle(Peer {
                    stream,
                    buffer: Vec::new(),
                    seen: all.clone(),
                }));
            }
        });
        Self {
            address,
            seen,
            task: task.abort_handle(),
        }
    }

    /// All requests so far, heads and bodies, as received.
    pub(crate) fn seen(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let texts = seen.iter().map(|bytes| String::from_utf8_lossy(bytes));
        texts.map(|text| text.into_owned()).collect()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// The next request, with its whole body; none at the connection's end.
    pub(crate) async fn request(&mut self) -> Option<String> {
        let head = self.head().await?;
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.lines().next());
        let mut request = head.into_bytes();
        if let Some(length) = length {
            let length: usize = length.trim().parse().unwrap();
            while self.buffer.len() < length {
                self.fill().await?;
            }
            request.extend(self.buffer.drain(..length));
        } else if lower.contains("transfer-encoding: chunked") {
            request.extend(self.read_until(b"0\r\n").await?);
            // Trailers, if any, and the empty line.
            loop {
                let line = self.read_until(b"\r\n").await?;
                request.extend(&line);
                if line == b"\r\n" {
                    break;
                }
            }
        }
        self.seen.lock().unwrap().push(request.clone());
        Some(String::from_utf8(request).unwrap())
    }

    /// The next head only.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let head = self.read_until(b"\r\n\r\n").await?;
        Some(String::from_utf8(head).unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The balancer may be gone; tests check what the client sees.
        self.stream.write_all(bytes.as_ref()).await.ok();
    }

    /// Reads `total` bytes; returns how many arrived before the connection's end.
    pub(crate) async fn count_body(&mut self, total: usize) -> usize {
        let mut count = self.buffer.len();
        self.buffer.clear();
        while count < total && self.fill().await.is_some() {
            count += self.buffer.len();
            self.buffer.clear();
        }
        count
    }

    /// Reads until the connection ends.
    pub(crate) async fn until_closed(&mut self) {
        while self.fill().await.is_some() {
            self.buffer.clear();
        }
    }

    async fn read_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.buffer.windows(end.len()).position(|w| w == end);
            if let Some(place) = found {
                return Some(self.buffer.drain(..place + end.len()).collect());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Option<()> {
        let mut buffer = [0; 65536];
        let len = self.stream.read(&mut buffer).await.ok()?;
        self.buffer.extend_from_slice(&buffer[..len]);
        (len > 0).then_some(())
    }
}

/// An address that refuses connections: a bound socket that does not listen reserves it.
pub(crate) fn refusing_address() -> (SocketAddr, tokio::net::TcpSocket) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

/// An address that does not answer: its accept queue is full.
pub(crate) async fn silent_address() -> (SocketAddr, impl Send) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    // A connection that is not established in time shows that the queue is full.
    let patience = std::time::Duration::from_millis(200);
    while let Ok(connected) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
    }
    (address, (listener, waiting))
}
