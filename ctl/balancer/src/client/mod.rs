//! The clients' side: accepting connections, judging their bytes, and the timeouts of a connection.
//!
//! [`io::ClientIo`] stands between a client's socket and hyper. What it and the request path have to tell
//! each other goes through the connection's [`gate::Gate`].

pub mod accept;
pub mod chunks;
pub mod framing;
pub mod gate;
pub mod io;

use std::{net::SocketAddr, sync::Arc};

use gate::Gate;

/// The client at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// Its connection's gate.
    pub gate: Arc<Gate>,
}
