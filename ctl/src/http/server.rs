//! Accepting connections: bounded in number and in the time they may take to say what they want.

mod crowd;

use std::{
    fs,
    future::ready,
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
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
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;
use tucano_tls::Door;

use self::crowd::{Crowd, Place};
use super::auth::{self, Peer};
use crate::config_mgr::Listen;

/// Pause when no connection can be accepted, such as for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How long requests under way may take to end at the controller's end.
const DRAIN: Duration = Duration::from_secs(2);
/// Longest request head.
const HEAD_BYTES: usize = 64 << 10;

/// Why the controller cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has the address.
    #[error("{address} is in use by another program: stop it, or set another address in ctl.toml")]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// Any other reason.
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
/// Why it cannot be had.
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

/// The socket that whoever started us opened as file descriptor 0.
fn inherited() -> io::Result<TcpListener> {
    let socket = StdTcpListener::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    if !sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other("it does not listen"));
    }
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Opens the balancer's socket, for our own user alone.
///
/// # Errors
/// Why it cannot be had.
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

/// Bounds that hold for every connection.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most connections at once; then the one that is idle for the longest time makes room for the next.
    pub connections: usize,
    /// Longest time for a request's head.
    pub header_timeout: Duration,
}

/// Serves until `stop`, then lets requests under way end for a moment.
pub async fn serve_tcp(
    listener: TcpListener,
    door: Door,
    router: Router,
    bounds: Bounds,
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
                    // Answers are small and awaited.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "no TCP_NODELAY");
                    }
                    if let Err(error) = keep_alive(&stream) {
                        tracing::debug!(%error, "no SO_KEEPALIVE");
                    }
                    let Some(place) = server.place(&stop).await else {
                        break;
                    };
                    let door = door.clone();
                    let entering = async move { door.enter(stream).await };
                    server.serve(entering, Some(Peer(from)), place);
                }
                Err(error) => pause(&error).await,
            },
        }
    }
    drop(listener);
    server.end().await;
}

/// A client that vanishes while it follows logs or runs a command would never be missed.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    const IDLE: Duration = Duration::from_secs(60);
    const INTERVAL: Duration = Duration::from_secs(15);
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    Ok(())
}

/// As [`serve_tcp`], on a unix socket, whose file is removed at the end.
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
                    let Some(place) = server.place(&stop).await else {
                        break;
                    };
                    server.serve(ready(Ok(stream)), None, place);
                }
                Err(error) => pause(&error).await,
            },
        }
    }
    if let Err(error) = fs::remove_file(&path) {
        tracing::debug!(%error, "the balancer's socket was gone already");
    }
    // Its long polls have nothing more to say.
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(PAUSE).await;
}

struct Server {
    router: Router,
    header_timeout: Duration,
    crowd: Crowd,
    /// That no connection is to take another request.
    ending: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    fn new(router: Router, bounds: Bounds) -> Self {
        Self {
            router,
            header_timeout: bounds.header_timeout,
            crowd: Crowd::new(bounds.connections),
            ending: CancellationToken::new(),
            connections: TaskTracker::new(),
        }
    }

    async fn place(&self, stop: &CancellationToken) -> Option<Place> {
        stop.run_until_cancelled(self.crowd.enter()).await
    }

    /// `entering` is until the connection's requests can be read: it takes no longer than a request's head may, and
    /// holds up nobody else.
    fn serve<S>(
        &self,
        entering: impl Future<Output = io::Result<S>> + Send + 'static,
        peer: Option<Peer>,
        place: Place,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, timeout) = (self.router.clone(), self.header_timeout);
        let ending = self.ending.clone();
        self.connections.spawn(async move {
            let served = async {
                let entered = tokio::time::timeout(timeout, entering);
                let Some(entered) = ending.run_until_cancelled(entered).await else {
                    return Ok(());
                };
                let stream = entered.map_err(io::Error::from)??;
                connection(stream, peer, router, timeout, ending.clone(), &place)
                    .await
                    .map_err(io::Error::other)
            };
            tokio::select! {
                ended = served => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                },
                () = place.evicted() => tracing::debug!("an idle connection made room"),
            }
            drop(place);
        });
    }

    async fn end(self) {
        self.ending.cancel();
        self.connections.close();
        if tokio::time::timeout(DRAIN, self.connections.wait())
            .await
            .is_err()
        {
            tracing::info!("some requests were still under way");
        }
    }
}

async fn connection<S>(
    stream: S,
    peer: Option<Peer>,
    router: Router,
    header_timeout: Duration,
    ending: CancellationToken,
    place: &Place,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let presence = place.presence();
    let service = tower::service_fn(move |mut request: hyper::Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let busy = presence.clone().busy();
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            answer
                .await
                .map(|answer| answer.map(|body| busy.until_sent(body)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEAD_BYTES.max(8192))
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    if let Some(ended) = ending.run_until_cancelled(connection.as_mut()).await {
        return ended;
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
