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
mod tests;
