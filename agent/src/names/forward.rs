//! Look-ups that the node's own name servers answer: in their order, the next one when one does not answer, or fails.
//!
//! Nothing is remembered: what one process asks for cannot change what another one is told.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long one name server is waited for.
const SERVER_TIME: Duration = Duration::from_secs(2);
/// Largest message that is read over UDP.
const UDP_BYTES: usize = 4096;
/// Response codes after which the next name server is asked.
const FAILURES: [u8; 3] = [SERVER_FAILURE, 4, 5];
const SERVER_FAILURE: u8 = 2;
/// Port of name servers.
const PORT: u16 = 53;

/// How a message came, and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Udp,
    Tcp,
}

/// The answer of the first name server that has one; that of the last if all fail; `None` if none answers.
pub(super) async fn ask(servers: &[IpAddr], over: Over, question: &[u8]) -> Option<Vec<u8>> {
    let mut last = None;
    for server in servers {
        let server = SocketAddr::new(*server, PORT);
        let answer = match over {
            Over::Udp => timeout(SERVER_TIME, over_udp(server, question)).await,
            Over::Tcp => timeout(SERVER_TIME, over_tcp(server, question)).await,
        };
        match answer {
            Ok(Ok(answer)) if !has_failed(&answer) => return Some(answer),
            Ok(Ok(answer)) => last = Some(answer),
            Ok(Err(error)) => tracing::debug!(%server, %error, "a name server cannot be asked"),
            Err(_) => tracing::debug!(%server, "a name server does not answer"),
        }
    }
    last
}

/// Each question has a socket, and so a port, of its own: only the server that was asked can answer it.
async fn over_udp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; UDP_BYTES];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= HEADER_BYTES && answer[..2] == question[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, question).await?;
    read_message(&mut stream).await
}

/// Reads a message after its length.
pub(super) async fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message after its length.
pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    let whole = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&whole).await
}

fn has_failed(answer: &[u8]) -> bool {
    answer
        .get(3)
        .is_none_or(|flags| FAILURES.contains(&(flags & 0x0f)))
}

const HEADER_BYTES: usize = 12;
