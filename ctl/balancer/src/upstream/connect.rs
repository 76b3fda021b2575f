//! Opening a connection to a process.

use std::{io, net::SocketAddr, time::Duration};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::{io::Errno, net::sockopt};
use tokio::{
    net::TcpStream,
    time::{error::Elapsed, timeout},
};
use tracing::debug;

use super::pool::Link;
use crate::limits::Limits;

/// Why a process could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It, or its node, refused.
    #[error("cannot connect to {0}")]
    Refused(SocketAddr, #[source] io::Error),
    /// This machine has no descriptor or port left for one more connection.
    #[error("this machine cannot open one more connection, to {0}")]
    Exhausted(SocketAddr, #[source] io::Error),
    /// Nothing came back in time.
    #[error("no answer from {0} to a connection attempt in time")]
    TimedOut(SocketAddr, #[source] Elapsed),
    /// The connection could not be set up for HTTP.
    #[error("cannot start HTTP on a connection to {0}")]
    Handshake(SocketAddr, #[source] hyper::Error),
}

/// Connects within the connect timeout and starts the task that drives the connection.
pub async fn connect(address: SocketAddr, limits: &Limits) -> Result<Link, Error> {
    let stream = timeout(limits.connect_timeout, TcpStream::connect(address))
        .await
        .map_err(|elapsed| Error::TimedOut(address, elapsed))?
        .map_err(|error| match is_ours(&error) {
            true => Error::Exhausted(address, error),
            false => Error::Refused(address, error),
        })?;
    tune(&stream);
    let (sender, connection) = http1::Builder::new()
        .max_headers(limits.max_headers)
        .max_buf_size(limits.head_len().max(READ_BUFFER_MAX))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Error::Handshake(address, error))?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%address, %error, "connection to a process ended");
        }
    });
    Ok(Link {
        sender,
        task: task.abort_handle(),
    })
}

/// Whether the cause is on this side, so that the process is not to blame.
fn is_ours(error: &io::Error) -> bool {
    let exhausted = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
    ];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}

/// Up to this much is read at once from a fast peer: large responses cost fewer system calls.
pub const READ_BUFFER_MAX: usize = 256 * 1024;

/// Bytes that the peer's machine does not acknowledge for so long end the connection: probes are not sent
/// while such bytes are on their way.
const UNACKNOWLEDGED_MS_MAX: u32 = 60_000;

/// Sets what every connection wants: no delay of small writes, and probes that find out when the peer's
/// machine is gone, so that a stream without traffic does not outlive it for ever.
pub fn tune(stream: &TcpStream) {
    let set = || -> rustix::io::Result<()> {
        sockopt::set_tcp_nodelay(stream, true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
        sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX)
    };
    // It fails only when the peer has gone already, which the next read reports.
    if let Err(error) = set() {
        debug!(%error, "cannot set options of a connection");
    }
}
