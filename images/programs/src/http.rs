//! One request and its answer: as much of RFC 9112 as a sample service needs.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// Longest request head, in bytes: longer ones are refused.
const HEAD_BYTES: u64 = 64 << 10;

/// The beginning of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Such as `GET`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What follows the `?`; empty without one.
    pub query: String,
    /// Names as they were sent, in order.
    pub headers: Vec<(String, String)>,
    keep_alive_by_default: bool,
}

impl Head {
    /// Reads a request's head; `None` if the client has closed the connection instead.
    ///
    /// # Errors
    /// `InvalidData` if it is not a request or too long, or the connection's error.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut reader = reader.take(HEAD_BYTES);
        let Some(line) = read_line(&mut reader)? else {
            return Ok(None);
        };
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(invalid("not a request line"));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut head = Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: Vec::new(),
            keep_alive_by_default: version == "HTTP/1.1",
        };
        loop {
            let line = read_line(&mut reader)?.ok_or_else(|| invalid("the head ends early"))?;
            if line.is_empty() {
                return Ok(Some(head));
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| invalid("not a header"))?;
            head.headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The first header of this name, whatever its letters' case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(sent, _)| sent.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn wants_keep_alive(&self) -> bool {
        match self.header("connection") {
            Some(value) if value.eq_ignore_ascii_case("close") => false,
            Some(value) if value.eq_ignore_ascii_case("keep-alive") => true,
            _ => self.keep_alive_by_default,
        }
    }

    fn body(&self) -> io::Result<Body> {
        match (
            self.header("transfer-encoding"),
            self.header("content-length"),
        ) {
            (Some(encoding), None) if encoding.eq_ignore_ascii_case("chunked") => {
                Ok(Body::Chunk { left: 0 })
            }
            (None, Some(length)) => {
                let left = length
                    .parse()
                    .map_err(|_| invalid("not a content-length"))?;
                Ok(Body::Sized { left })
            }
            (None, None) => Ok(Body::Sized { left: 0 }),
            _ => Err(invalid("an ambiguous body")),
        }
    }
}

/// The unread rest of the request's body.
#[derive(Debug, Clone, Copy)]
enum Body {
    Sized { left: u64 },
    Chunk { left: u64 },
}

/// A request and its answer. Implements `Read` for the request's body.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The request's head.
    pub head: Head,
    /// Who sent it.
    pub client: SocketAddr,
    reader: &'a mut BufReader<TcpStream>,
    body: Body,
    awaits_continue: bool,
    keeps_alive: bool,
}

impl<'a> Exchange<'a> {
    /// The exchange that this head begins; `closing` says that no other may follow it.
    ///
    /// # Errors
    /// If the head does not tell the body's length.
    pub fn new(
        head: Head,
        reader: &'a mut BufReader<TcpStream>,
        closing: bool,
    ) -> io::Result<Self> {
        let expects = head.header("expect");
        let awaits_continue = expects.is_some_and(|it| it.eq_ignore_ascii_case("100-continue"));
        Ok(Self {
            client: reader.get_ref().peer_addr()?,
            body: head.body()?,
            keeps_alive: head.wants_keep_alive() && !closing,
            awaits_continue,
            head,
            reader,
        })
    }

    /// Answers with a text.
    ///
    /// # Errors
    /// The connection's.
    pub fn answer(&mut self, status: &str, text: &str) -> io::Result<()> {
        let head = self.answer_head(status, &format!("Content-Length: {}", text.len()));
        self.send(format!("{head}{text}").as_bytes())
    }

    /// Begins an answer of unknown length, sent piece by piece.
    ///
    /// # Errors
    /// The connection's.
    pub fn begin_stream(&mut self) -> io::Result<()> {
        let head = self.answer_head("200 OK", "Transfer-Encoding: chunked");
        self.send(head.as_bytes())
    }

    /// Sends a piece of the answer that [`Self::begin_stream`] began; the empty one ends it.
    ///
    /// # Errors
    /// The connection's.
    pub fn send_piece(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        self.send(&chunk)
    }

    /// Changes to another protocol; afterwards the connection belongs to the caller.
    ///
    /// # Errors
    /// The connection's.
    pub fn upgrade(&mut self, protocol: &str) -> io::Result<&mut BufReader<TcpStream>> {
        self.keeps_alive = false;
        self.send(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
            )
            .as_bytes(),
        )?;
        Ok(self.reader)
    }

    /// Ends the exchange; whether another may follow on the connection. A body that the answer did
    /// not need is read and forgotten, so that the next request is found behind it.
    ///
    /// # Errors
    /// The connection's.
    pub fn finish(mut self) -> io::Result<bool> {
        if !self.keeps_alive || self.awaits_continue {
            return Ok(false);
        }
        io::copy(&mut self, &mut io::sink())?;
        Ok(true)
    }

    fn answer_head(&self, status: &str, framing: &str) -> String {
        let connection = if self.keeps_alive {
            "keep-alive"
        } else {
            "close"
        };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Connection: {connection}\r\n{framing}\r\n\r\n"
        )
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    fn next_chunk(&mut self) -> io::Result<u64> {
        let line = read_line(&mut self.reader.by_ref().take(HEAD_BYTES))?;
        let line = line.ok_or_else(|| invalid("the body ends early"))?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| invalid("not a chunk's size"))?;
        if size == 0 {
            while read_line(&mut self.reader.by_ref().take(HEAD_BYTES))?
                .is_some_and(|trailer| !trailer.is_empty())
            {}
        }
        Ok(size)
    }

    fn read_at_most(&mut self, buffer: &mut [u8], left: u64) -> io::Result<u64> {
        match self.reader.by_ref().take(left).read(buffer)? {
            0 if !buffer.is_empty() => Err(invalid("the body ends early")),
            read => Ok(read as u64),
        }
    }
}

impl Read for Exchange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.awaits_continue) {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        match self.body {
            Body::Sized { left: 0 } => Ok(0),
            Body::Sized { left } => {
                let read = self.read_at_most(buffer, left)?;
                self.body = Body::Sized { left: left - read };
                Ok(read as usize)
            }
            Body::Chunk { left: 0 } => match self.next_chunk()? {
                0 => {
                    self.body = Body::Sized { left: 0 };
                    Ok(0)
                }
                left => {
                    self.body = Body::Chunk { left };
                    self.read(buffer)
                }
            },
            Body::Chunk { left } => {
                let read = self.read_at_most(buffer, left)?;
                self.body = Body::Chunk { left: left - read };
                if left == read {
                    read_line(&mut self.reader.by_ref().take(HEAD_BYTES))?;
                }
                Ok(read as usize)
            }
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    if !line.ends_with('\n') {
        return Err(invalid("a line without an end, or too long"));
    }
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(Some(line))
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests;
