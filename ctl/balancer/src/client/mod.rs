//! Client connections: accept, validation of what clients send, timeouts.
//!
//! [`io::ClientIo`] sits between a client's socket and hyper. It shares a [`state::ConnectionState`] with the
//! request path.

pub mod accept;
pub mod admission;
pub mod chunks;
pub mod edits;
pub mod fields;
pub mod framing;
pub mod io;
pub mod state;
pub mod timer;

use std::{net::SocketAddr, sync::Arc};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::TcpStream;

use state::ConnectionState;

/// The client at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// The state of its connection.
    pub state: Arc<ConnectionState>,
    /// Its socket.
    pub stream: Arc<TcpStream>,
}

impl Client {
    /// Whether the client has closed its connection, or its sending direction.
    pub fn is_gone(&self) -> bool {
        let mut closed = [PollFd::new(&*self.stream, PollFlags::RDHUP)];
        poll(&mut closed, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}
