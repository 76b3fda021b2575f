//! Accepts and serves connections, bounded in number and time.

mod body_deadline;
mod connection_limiter;

use std::{
    fs,
    future::ready,
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdTcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;
use tucano_tls::{Lingering, ProtocolSniffer};

pub use self::body_deadline::SlowBody;
use self::{
    body_deadline::BodyDeadline,
    connection_limiter::{ConnectionLimiter, ConnectionSlot, Limits as ConnectionLimits, TooMany},
};
use super::auth::{self, Peer};
use crate::config_mgr::{Limits, Listen};

/// Pause after a failed accept, such as for lack of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Longest time that is spent on a refused connection.
const REFUSAL_TIME: Duration = Duration::from_secs(2);
/// How long active requests may take to finish during shutdown.
const DRAIN: Duration = Duration::from_secs(2);
/// Longest request head.
const HEAD_BYTES: usize = 64 << 10;

/// Why the controller cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program uses the address.
    #[error("{address} is in use by another program: stop it, or set another address in ctl.toml")]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// Another error.
    #[error("cannot listen on {place}: {source}")]
    Io {
        /// The address or path.
        place: String,
        /// What the system says.
        source: io::Error,
    },
}

/// Opens a listening socket.
///
/// # Errors
/// Why the socket cannot be opened.
pub async fn bind(listen: Listen) -> Result<TcpListener, ListenError> {
    match listen {
        Listen::Address(address) => TcpListener::bind(address).await.map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse {
                return ListenError::InUse { address };
            }
            ListenError::Io {
                place: address.to_string(),
                source,
            }
        }),
        Listen::Stdin => inherited().map_err(|source| ListenError::Io {
            place: "the socket inherited as stdin".to_owned(),
            source,
        }),
    }
}

/// The listening socket inherited as file descriptor 0.
fn inherited() -> io::Result<TcpListener> {
    let socket = StdTcpListener::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    if !sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other("it does not listen"));
    }
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Opens the balancer's socket, for our own user only.
///
/// # Errors
/// Why the socket cannot be opened.
pub fn bind_unix(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::Io {
        place: path.display().to_string(),
        source,
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Bounds on connections.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most concurrent connections; beyond, the longest idle one is evicted.
    pub connections: usize,
    /// Most concurrent connections of one peer.
    pub connections_per_peer: usize,
    /// Most additional connections from workers' addresses.
    pub worker_connections: usize,
    /// Longest time for a request's head.
    pub header_timeout: Duration,
    /// Longest time for a request's body, extended at a minimum rate.
    pub body_time: Duration,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        let count = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            connections: count(limits.connections),
            connections_per_peer: count(limits.connections_per_peer),
            worker_connections: count(limits.worker_connections),
            header_timeout: limits.header_timeout.0,
            body_time: limits.body_time.0,
        }
    }
}

/// Serves until `stop`, then lets active requests finish for a moment.
pub async fn serve_tcp(
    listener: TcpListener,
    sniffer: ProtocolSniffer,
    router: Router,
    bounds: Bounds,
    is_worker: impl Fn(IpAddr) -> bool + Send + 'static,
    stop: CancellationToken,
) {
    let Ok(local) = listener.local_addr() else {
        return tracing::error!("a listener without address");
    };
    tracing::info!(%local, "the API listens");
    let router = router.layer(axum::Extension(auth::Listener { local }));
    let server = Server::new(router, bounds);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    // Answers are small and latency matters.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "no TCP_NODELAY");
                    }
                    if let Err(error) = keep_alive(&stream) {
                        tracing::debug!(%error, "no SO_KEEPALIVE");
                    }
                    let ip = from.ip().to_canonical();
                    let slot = match server.slot(Some(ip), is_worker(ip), &stop).await {
                        Some(Ok(slot)) => slot,
                        Some(Err(TooMany)) => {
                            server.refuse(stream, ip, bounds.connections_per_peer);
                            continue;
                        }
                        None => break,
                    };
                    let sniffer = sniffer.clone();
                    let handshake = async move {
                        let stream = sniffer.accept(stream).await?;
                        let identity = stream.identity();
                        let peer = Peer { address: from, identity };
                        Ok((stream, Some(peer)))
                    };
                    server.serve(handshake, slot);
                }
                Err(error) => pause(&error).await,
            },
        }
    }
    drop(listener);
    server.drain().await;
}

/// Detects clients that vanish while they follow logs or run a command.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    const IDLE: Duration = Duration::from_secs(60);
    const INTERVAL: Duration = Duration::from_secs(15);
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    Ok(())
}

/// Like [`serve_tcp`], on a unix socket, whose file is removed at the end.
pub async fn serve_unix(
    listener: UnixListener,
    path: PathBuf,
    router: Router,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let server = Server::new(router, bounds);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Some(Ok(slot)) = server.slot(None, false, &stop).await else {
                        break;
                    };
                    server.serve(ready(Ok((stream, None))), slot);
                }
                Err(error) => pause(&error).await,
            },
        }
    }
    if let Err(error) = fs::remove_file(&path) {
        tracing::debug!(%error, "the balancer's socket file is already gone");
    }
    // Long polls are not drained: no more changes will come.
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_RETRY).await;
}

struct Server {
    router: Router,
    header_timeout: Duration,
    body_time: Duration,
    limiter: ConnectionLimiter,
    /// Connections accept no further request.
    draining: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    fn new(router: Router, bounds: Bounds) -> Self {
        Self {
            router,
            header_timeout: bounds.header_timeout,
            body_time: bounds.body_time,
            limiter: ConnectionLimiter::new(ConnectionLimits {
                total: bounds.connections,
                per_peer: bounds.connections_per_peer,
                workers: bounds.worker_connections,
            }),
            draining: CancellationToken::new(),
            connections: TaskTracker::new(),
        }
    }

    async fn slot(
        &self,
        peer: Option<IpAddr>,
        is_worker: bool,
        stop: &CancellationToken,
    ) -> Option<Result<ConnectionSlot, TooMany>> {
        stop.run_until_cancelled(self.limiter.acquire(peer, is_worker))
            .await
    }

    /// Tells a plain client why it is refused. A TLS client is closed: a handshake for each would cost too much.
    fn refuse(&self, stream: TcpStream, peer: IpAddr, limit: usize) {
        tracing::warn!(%peer, limit, "refused a connection: too many of this address (limits.connections_per_peer)");
        let mut first = [0];
        let refusal = async move {
            if stream.peek(&mut first).await? > 0 && first[0].is_ascii_uppercase() {
                let mut stream = Lingering::new(stream);
                stream.write_all(refusal(limit).as_bytes()).await?;
                stream.shutdown().await?;
            }
            io::Result::Ok(())
        };
        self.connections.spawn(async move {
            let refused = tokio::time::timeout(REFUSAL_TIME, refusal).await;
            if let Ok(Err(error)) = refused {
                tracing::debug!(%peer, %error, "a refused client is gone");
            }
        });
    }

    /// Serves a connection once `handshake` is complete, which has the time limit of a request's head.
    fn serve<S>(
        &self,
        handshake: impl Future<Output = io::Result<(S, Option<Peer>)>> + Send + 'static,
        slot: ConnectionSlot,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, timeout) = (self.router.clone(), self.header_timeout);
        let body_time = self.body_time;
        let draining = self.draining.clone();
        self.connections.spawn(async move {
            let served = async {
                let handshake = tokio::time::timeout(timeout, handshake);
                let Some(accepted) = draining.run_until_cancelled(handshake).await else {
                    return Ok(());
                };
                let (stream, peer) = accepted.map_err(io::Error::from)??;
                let times = (timeout, body_time);
                connection(stream, peer, router, times, draining.clone(), &slot)
                    .await
                    .map_err(io::Error::other)
            };
            tokio::select! {
                ended = served => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection failed");
                },
                () = slot.evicted() => tracing::debug!("evicted an idle connection"),
            }
            drop(slot);
        });
    }

    async fn drain(self) {
        self.draining.cancel();
        self.connections.close();
        if tokio::time::timeout(DRAIN, self.connections.wait())
            .await
            .is_err()
        {
            tracing::info!("some requests were still active");
        }
    }
}

fn refusal(limit: usize) -> String {
    let body = format!(
        "{{\"error\":\"too many connections from this address: at most {limit} (limits.connections_per_peer)\",\"code\":\"too_many_connections\"}}\n"
    );
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn connection<S>(
    stream: S,
    peer: Option<Peer>,
    router: Router,
    (header_timeout, body_time): (Duration, Duration),
    draining: CancellationToken,
    slot: &ConnectionSlot,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = slot.activity();
    let service = tower::service_fn(move |mut request: hyper::Request<Incoming>| {
        if let Some(peer) = peer.clone() {
            request.extensions_mut().insert(peer);
        }
        let active = activity.clone().begin_request();
        let request = request.map(|body| Body::new(BodyDeadline::new(body, body_time)));
        let answer = router.clone().oneshot(request);
        async move {
            answer
                .await
                .map(|answer| answer.map(|body| active.until_sent(body)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEAD_BYTES.max(8192))
        .serve_connection(
            TokioIo::new(Lingering::new(stream)),
            TowerToHyperService::new(service),
        )
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    if let Some(ended) = draining.run_until_cancelled(connection.as_mut()).await {
        return ended;
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
