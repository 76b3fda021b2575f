//! Opens connections to processes.

use std::{io, net::SocketAddr, time::Duration};

use rustix::{io::Errno, net::sockopt};
use tokio::{
    net::TcpStream,
    time::{error::Elapsed, timeout},
};
use tracing::debug;

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
}

/// Connects within the connect timeout.
///
/// # Errors
/// See [`Error`].
pub async fn connect(address: SocketAddr, limits: &Limits) -> Result<TcpStream, Error> {
    let stream = timeout(limits.connect_timeout, TcpStream::connect(address))
        .await
        .map_err(|elapsed| Error::TimedOut(address, elapsed))?
        .map_err(|error| match is_local(&error) {
            true => Error::Exhausted(address, error),
            false => Error::Refused(address, error),
        })?;
    tune(&stream, limits.unreachable_timeout);
    Ok(stream)
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
