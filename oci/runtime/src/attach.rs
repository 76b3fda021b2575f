//! The attach socket of a supervisor. It lies in the container's state directory, where only root reaches it. A client
//! receives the container's output from the moment it connects, or sends a signal to the container. Each message is
//! one packet:
//!
//! ```text
//! client ── {"output":null} | {"signal":15} ──> supervisor
//! client <── one byte for the kind, then the payload ── supervisor
//! ```
//!
//! A client never blocks the container. A client that reads too slowly is disconnected; the log files hold the
//! complete output. Containers of the agent have neither stdin nor a terminal.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    net::{RecvFlags, SendFlags, SocketFlags, accept_with, bind, listen, recv, send},
    process::pidfd_send_signal,
};
use serde::{Deserialize, Serialize};

use crate::{
    listener::{socket, with_address},
    logs::{CHUNK_BYTES, Source},
    signals,
};

/// File name of the socket.
pub(crate) const NAME: &str = "attach";

/// Maximum number of clients at a time.
pub(crate) const MAX_CLIENTS: usize = 8;

/// Maximum length of a request.
const REQUEST_LIMIT_BYTES: usize = 128;

/// A client's request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Stream the container's output from now on.
    Output,
    /// Send a signal to the container's init process.
    Signal(i32),
}

/// The first byte of a packet to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The container has exited and its exit status is on disk.
    End = b'.' as isize,
    /// The request has been carried out.
    Done = b'+' as isize,
    /// The request failed; the payload says why.
    Refused = b'-' as isize,
    Stdout = b'1' as isize,
    Stderr = b'2' as isize,
}

impl Kind {
    pub(crate) fn of(byte: u8) -> Option<Self> {
        [
            Self::End,
            Self::Done,
            Self::Refused,
            Self::Stdout,
            Self::Stderr,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

impl From<Source> for Kind {
    fn from(source: Source) -> Self {
        match source {
            Source::Stdout => Self::Stdout,
            Source::Stderr => Self::Stderr,
        }
    }
}

/// The listening socket and its clients.
#[derive(Debug)]
pub(crate) struct AttachServer {
    socket: OwnedFd,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    connection: OwnedFd,
    wants_output: bool,
}

impl AttachServer {
    /// Binds the socket in a state directory.
    pub(crate) fn bind(state_dir: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        with_address(state_dir, NAME, |address| Ok(bind(&socket, address)?))?;
        listen(&socket, MAX_CLIENTS as i32)?;
        Ok(Self {
            socket,
            clients: Vec::new(),
        })
    }

    /// The descriptors to poll, in the order that [`Self::serve`] expects.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let clients = self.clients.iter().map(|client| client.connection.as_fd());
        std::iter::once(self.socket.as_fd()).chain(clients)
    }

    /// Serves the descriptors that are ready.
    pub(crate) fn serve(&mut self, ready: &[bool], process: &OwnedFd) {
        let mut rest = ready.iter().skip(1);
        self.clients
            .retain_mut(|client| !rest.next().unwrap_or(&false) || client.serve(process));
        if ready.first() == Some(&true) {
            self.accept_all();
        }
    }

    /// Accepts pending connections. A client beyond the limit gets an error.
    fn accept_all(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(connection) = accept_with(&self.socket, flags) {
            let mut client = Client {
                connection,
                wants_output: false,
            };
            if self.clients.len() < MAX_CLIENTS {
                self.clients.push(client);
            } else {
                let message = format!("{MAX_CLIENTS} clients are attached already");
                client.send(Kind::Refused, message.as_bytes());
            }
        }
    }

    /// Sends output to every client that asked for it.
    pub(crate) fn broadcast(&mut self, source: Source, chunk: &[u8]) {
        self.clients
            .retain_mut(|client| !client.wants_output || client.send(source.into(), chunk));
    }

    /// Notifies every client, including those that connected meanwhile, that the container has exited. Pending
    /// requests are read first: closing a socket with unread data would discard what was sent.
    pub(crate) fn close(mut self, process: &OwnedFd) {
        self.accept_all();
        for client in &mut self.clients {
            client.serve(process);
            client.send(Kind::End, &[]);
        }
    }
}

impl Client {
    /// Returns false if the client is gone or has to be disconnected.
    fn serve(&mut self, process: &OwnedFd) -> bool {
        let mut buffer = [0; REQUEST_LIMIT_BYTES];
        let length = match recv(&self.connection, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(_) => return false,
            Ok((length, _)) => length,
        };
        match serde_json::from_slice(&buffer[..length]) {
            Ok(Request::Output) => {
                self.wants_output = true;
                self.send(Kind::Done, &[])
            }
            Ok(Request::Signal(number)) => match signal(process, number) {
                Ok(()) => self.send(Kind::Done, &[]),
                Err(error) => self.send(Kind::Refused, error.to_string().as_bytes()),
            },
            Err(error) => self.send(Kind::Refused, error.to_string().as_bytes()),
        }
    }

    /// Returns false if the client does not read fast enough or is gone.
    fn send(&mut self, kind: Kind, what: &[u8]) -> bool {
        let mut packet = [0; 1 + CHUNK_BYTES];
        let length = what.len().min(CHUNK_BYTES);
        packet[0] = kind as u8;
        packet[1..=length].copy_from_slice(&what[..length]);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        send(&self.connection, &packet[..=length], flags).is_ok()
    }
}

fn signal(process: &OwnedFd, number: i32) -> io::Result<()> {
    let signal = signals::from_number(number)
        .ok_or_else(|| io::Error::other(format!("{number} is not a signal number")))?;
    Ok(pidfd_send_signal(process, signal)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::connect;

    fn connect_client(state_dir: &Path) -> OwnedFd {
        let client = socket().unwrap();
        with_address(state_dir, NAME, |address| Ok(connect(&client, address)?)).unwrap();
        client
    }

    fn next(client: &OwnedFd) -> Option<(Kind, Vec<u8>)> {
        let mut buffer = [0; 1 + CHUNK_BYTES];
        let length = rustix::io::read(client, &mut buffer).unwrap();
        Some((
            Kind::of(*buffer[..length].first()?)?,
            buffer[1..length].to_vec(),
        ))
    }

    fn ask(client: &OwnedFd, request: &Request) {
        rustix::io::write(client, &serde_json::to_vec(request).unwrap()).unwrap();
    }

    fn serve_all(server: &mut AttachServer) {
        let nobody = std::fs::File::open("/dev/null").unwrap().into();
        // The first round accepts the clients, the second reads their requests.
        for _ in 0..2 {
            let count = server.descriptors().count();
            server.serve(&vec![true; count], &nobody);
        }
    }

    #[test]
    fn excess_clients_are_refused() {
        let state_dir = tempfile::tempdir().unwrap();
        let mut server = AttachServer::bind(state_dir.path()).unwrap();
        let clients: Vec<_> = (0..MAX_CLIENTS)
            .map(|_| connect_client(state_dir.path()))
            .collect();
        clients
            .iter()
            .for_each(|client| ask(client, &Request::Output));
        serve_all(&mut server);
        let late = connect_client(state_dir.path());
        let count = server.descriptors().count();
        let mut ready = vec![false; count];
        ready[0] = true;
        let nobody = std::fs::File::open("/dev/null").unwrap().into();
        server.serve(&ready, &nobody);
        assert_eq!(next(&late).unwrap().0, Kind::Refused);
        assert_eq!(next(&late), None);
        server.broadcast(Source::Stderr, b"hi");
        server.close(&nobody);
        for client in &clients {
            assert_eq!(next(client), Some((Kind::Done, vec![])));
            assert_eq!(next(client), Some((Kind::Stderr, b"hi".to_vec())));
            assert_eq!(next(client), Some((Kind::End, vec![])));
            assert_eq!(next(client), None);
        }
    }

    #[test]
    fn slow_clients_are_disconnected() {
        let state_dir = tempfile::tempdir().unwrap();
        let mut server = AttachServer::bind(state_dir.path()).unwrap();
        let (slow, fast) = (
            connect_client(state_dir.path()),
            connect_client(state_dir.path()),
        );
        ask(&slow, &Request::Output);
        ask(&fast, &Request::Output);
        serve_all(&mut server);
        assert_eq!(next(&fast), Some((Kind::Done, vec![])));
        // Far more than the socket buffer holds.
        for _ in 0..10_000 {
            server.broadcast(Source::Stdout, &[b'x'; CHUNK_BYTES]);
            assert_eq!(next(&fast).unwrap().1.len(), CHUNK_BYTES);
        }
        assert_eq!(server.clients.len(), 1);
        // A client that connects late learns of the exit too.
        let late = connect_client(state_dir.path());
        ask(&late, &Request::Output);
        server.close(&std::fs::File::open("/dev/null").unwrap().into());
        assert_eq!(next(&late), Some((Kind::Done, vec![])));
        assert_eq!(next(&late), Some((Kind::End, vec![])));
        assert_eq!(next(&fast), Some((Kind::End, vec![])));
        let mut seen = Vec::new();
        while let Some((kind, _)) = next(&slow) {
            seen.push(kind);
        }
        assert!(seen.len() > 1 && !seen.contains(&Kind::End));
    }

    #[test]
    fn an_invalid_request_is_refused() {
        let state_dir = tempfile::tempdir().unwrap();
        let mut server = AttachServer::bind(state_dir.path()).unwrap();
        let client = connect_client(state_dir.path());
        rustix::io::write(&client, b"{}").unwrap();
        serve_all(&mut server);
        assert_eq!(next(&client).unwrap().0, Kind::Refused);
        ask(&client, &Request::Signal(999));
        serve_all(&mut server);
        let (kind, why) = next(&client).unwrap();
        assert_eq!(kind, Kind::Refused);
        assert!(String::from_utf8(why).unwrap().contains("999"));
    }
}
