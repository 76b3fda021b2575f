//! Opens connections to processes.

use std::{io, net::SocketAddr, time::Duration};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::{io::Errno, net::sockopt};
use tokio::{
    net::TcpStream,
    time::{error::Elapsed, timeout},
};
use tracing::debug;

use super::{
    io::{EscapedTarget, UpstreamIo},
    pool::Link,
};
use crate::limits::Limits;

/// Why a connection attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process or its node refused.
    #[error("cannot connect to {0}")]
    Refused(SocketAddr, #[source] io::Error),
    /// This machine is out of descriptors, ports or memory.
    #[error("this machine cannot open one more connection, to {0}")]
    Exhausted(SocketAddr, #[source] io::Error),
    /// No answer in time.
    #[error("no answer from {0} to a connection attempt in time")]
    TimedOut(SocketAddr, #[source] Elapsed),
    /// hyper's handshake failed.
    #[error("cannot start HTTP on a connection to {0}")]
    Handshake(SocketAddr, #[source] hyper::Error),
}

/// Connects within the connect timeout and spawns the task that drives the connection.
pub async fn connect(address: SocketAddr, limits: &Limits) -> Result<Link, Error> {
    let stream = timeout(limits.connect_timeout, TcpStream::connect(address))
        .await
        .map_err(|elapsed| Error::TimedOut(address, elapsed))?
        .map_err(|error| match is_local(&error) {
            true => Error::Exhausted(address, error),
            false => Error::Refused(address, error),
        })?;
    tune(&stream, limits.unreachable_timeout);
    let escaped = EscapedTarget::default();
    let (sender, connection) = http1::Builder::new()
        .max_headers(limits.max_headers)
        .max_header_size(limits.head_len())
        // Servers with this old fault are served by other proxies too; the space is not forwarded.
        .allow_spaces_after_header_name_in_responses(true)
        .max_buf_size(limits.head_len().max(READ_BUFFER_MAX))
        .handshake(TokioIo::new(UpstreamIo::new(stream, escaped.clone())))
        .await
        .map_err(|error| Error::Handshake(address, error))?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%address, %error, "connection to a process ended");
        }
    });
    Ok(Link {
        is_reused: false,
        escaped,
        sender,
        task: task.abort_handle(),
    })
}

/// Whether the cause is this machine, not the process.
fn is_local(error: &io::Error) -> bool {
    let exhausted = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
    ];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}

/// The resolution of keepalive times.
const SECOND: Duration = Duration::from_secs(1);

/// Largest read from a fast peer, and roughly what is buffered for a slow one. More costs memory for each client
/// that does not read; much less costs system calls.
pub const READ_BUFFER_MAX: usize = 64 * 1024;

/// Keepalive probes of a connection until its peer counts as gone.
const PROBES: u32 = 3;

/// Disables Nagle's algorithm, and ends the connection when its peer's machine has acknowledged nothing for `unreachable`:
/// neither data, nor keepalive probes while the stream carries no traffic.
pub fn tune(stream: &TcpStream, unreachable: Duration) {
    let idle = (unreachable / 2).max(SECOND);
    let interval = (unreachable / 2 / PROBES).max(SECOND);
    let unacknowledged = u32::try_from(unreachable.as_millis()).unwrap_or(u32::MAX);
    let set = || -> rustix::io::Result<()> {
        sockopt::set_tcp_nodelay(stream, true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, idle)?;
        sockopt::set_tcp_keepintvl(stream, interval)?;
        sockopt::set_tcp_keepcnt(stream, PROBES)?;
        sockopt::set_tcp_user_timeout(stream, unacknowledged)
    };
    // This fails only if the peer is gone already; the next read reports that.
    if let Err(error) = set() {
        debug!(%error, "cannot set options of a connection");
    }
}
