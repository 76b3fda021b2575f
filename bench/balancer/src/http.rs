//! Just enough HTTP/1.1 for both ends of the measurement.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    len: usize,
}

/// A message's head.
#[derive(Debug)]
pub(crate) struct Head {
    /// Its first line.
    pub(crate) line: String,
    /// Length of its body.
    pub(crate) body_len: usize,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: vec![0; 256 * 1024],
            len: 0,
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads a message and discards its body; none at the connection's end.
    pub(crate) async fn receive(&mut self) -> io::Result<Option<Head>> {
        let head_len = loop {
            let bytes = &self.buffer[..self.len];
            if let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") {
                break end + 4;
            }
            if !self.fill().await? {
                return Ok(None);
            }
        };
        let head = Head::parse(&self.buffer[..head_len])?;
        let here = (self.len - head_len).min(head.body_len);
        self.buffer.copy_within(head_len + here..self.len, 0);
        self.len -= head_len + here;
        let mut left = head.body_len - here;
        while left > 0 {
            let len = left.min(self.buffer.len());
            match self.stream.read(&mut self.buffer[..len]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left -= read,
            }
        }
        Ok(Some(head))
    }

    async fn fill(&mut self) -> io::Result<bool> {
        let read = self.stream.read(&mut self.buffer[self.len..]).await?;
        self.len += read;
        Ok(read > 0)
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
        let text = std::str::from_utf8(bytes).map_err(invalid)?;
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let mut body_len = 0;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                let value: usize = value.trim().parse().map_err(|_| invalid_length())?;
                body_len = value;
            }
        }
        Ok(Self { line, body_len })
    }
}

fn invalid_length() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a length is not a number")
}
