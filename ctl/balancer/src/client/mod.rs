//! Client connections: accept, validation of what clients send, timeouts.
//!
//! [`io::ClientIo`] sits between a client's socket and hyper. It shares a [`state::ConnectionState`] with the
//! request path.

pub mod accept;
pub mod chunks;
pub mod framing;
pub mod io;
pub mod state;

use std::{net::SocketAddr, sync::Arc};

use state::ConnectionState;

/// The client at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// The state of its connection.
    pub state: Arc<ConnectionState>,
}
