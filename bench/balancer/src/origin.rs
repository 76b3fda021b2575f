//! The process behind the proxies: `GET /LENGTH` is answered with so many bytes.

use std::{
    io,
    net::{self, SocketAddr},
    sync::Arc,
    thread,
};

use anyhow::Result;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
};

use crate::http::Connection;

/// A server in a thread of its own, until the program ends.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
}

/// The longest answer.
const LENGTH_MAX: usize = 64 * 1024 * 1024;

impl Origin {
    pub(crate) fn start() -> Result<Self> {
        let listener = net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::spawn(move || runtime.block_on(serve(listener)));
        Ok(Self { address })
    }
}

async fn serve(listener: net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // It ends with its connection.
        tokio::spawn(answer_all(stream));
    }
}

async fn answer_all(stream: TcpStream) -> io::Result<()> {
    let mut connection = Connection::new(stream);
    let mut last = (usize::MAX, Arc::new(Vec::new()));
    while let Some(head) = connection.receive().await? {
        let target = head.line.split(' ').nth(1).unwrap_or("/");
        let length = target.trim_start_matches('/').parse().unwrap_or(0);
        if last.0 != length {
            last = (length, Arc::new(response(length.min(LENGTH_MAX))));
        }
        connection.send(&last.1).await?;
    }
    Ok(())
}

fn response(length: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nServer: origin\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut response = head.into_bytes();
    response.resize(response.len() + length, b'x');
    response
}
