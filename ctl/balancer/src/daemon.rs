//! The balancer as a whole: build, run, drain.

use std::{
    io,
    net::{self, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use rustix::net::sockopt::socket_acceptconn;
use tokio::{
    net::{TcpListener, TcpSocket, UnixListener},
    time::{interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use crate::{
    admin,
    client::accept::Acceptor,
    detach,
    follow::{
        Follower,
        cache::Cache,
        certificate::OwnCertificate,
        controller::{Address, Controller},
        report::Reporter,
    },
    lock::{Lock, LockError},
    plane::DataPlane,
    settings::{Listen, Settings},
};

/// Clients that wait to be accepted on one address.
const BACKLOG: u32 = 1024;

/// How often idle pooled connections are reaped.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// A balancer with its listeners, ready to run.
#[derive(Debug)]
pub struct Balancer {
    plane: Arc<DataPlane>,
    follower: Follower,
    reporter: Reporter,
    /// Of a balancer on another machine than the controller's.
    certificate: Option<(Arc<OwnCertificate>, Controller)>,
    listeners: Vec<Listener>,
    admin: Option<UnixListener>,
    lock: Option<Lock>,
    is_child: bool,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    is_inherited: bool,
}

/// Why the balancer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Listening on an address failed.
    #[error("cannot listen on {0}")]
    Bind(SocketAddr, #[source] io::Error),
    /// Descriptor 0 is not a listening TCP socket.
    #[error("standard input is not a listening TCP socket (--listen stdin)")]
    Stdin(#[source] io::Error),
    /// The key or certificate is not usable.
    #[error(transparent)]
    Tls(#[from] tucano_tls::Error),
    /// A controller on another machine, and nothing to present to it.
    #[error("--follow https://… needs --identity DIR, for this balancer's key and certificate")]
    NoIdentity,
    /// The admin socket cannot be created.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
}

impl Balancer {
    /// Takes the lock, listens, and puts the cached routes in force. Must run within a tokio runtime.
    pub async fn build(settings: &Settings) -> Result<Self, StartError> {
        let mut lock = match &settings.lock {
            Some(path) => Some(Lock::take(path).await?),
            None => None,
        };
        let follows_draining = lock.as_ref().is_some_and(|lock| lock.follows_draining);
        let mut listeners = Vec::new();
        for listen in &settings.listen {
            listeners.push(open(listen, follows_draining)?);
        }
        if let Some(lock) = &mut lock {
            lock.listening()?;
        }
        let admin = settings.admin.as_deref().map(admin::bind).transpose()?;
        let plane = DataPlane::new(settings.limits.clone(), settings.trust_forwarded);
        let plane = Arc::new(plane);
        let cache = settings.routes.as_deref().map(Cache::new);
        let (controller, certificate) = controller(settings)?;
        let reporter = Reporter::new(plane.clone(), controller.clone());
        let follower = Follower::start(plane.clone(), controller.clone(), cache);
        Ok(Self {
            plane,
            follower,
            reporter,
            certificate: certificate.map(|own| (own, controller)),
            listeners,
            admin,
            lock,
            is_child: false,
        })
    }

    /// It has a parent process, without which it is to drain.
    pub fn with_parent(self, is_child: bool) -> Self {
        Self { is_child, ..self }
    }

    /// The listening addresses, in the settings' order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter();
        listeners
            .filter_map(|listener| listener.socket.local_addr().ok())
            .collect()
    }

    /// State shared by all requests.
    pub fn plane(&self) -> &Arc<DataPlane> {
        &self.plane
    }

    /// Serves until `stop` is cancelled, hands over to the next balancer, then drains for `--drain-timeout` at most.
    pub async fn run(self, stop: CancellationToken) {
        let plane = self.plane;
        // Background tasks are aborted when this function returns.
        let _follower = background(self.follower.run());
        let reporter = background(self.reporter.clone().run());
        let _certificate = self
            .certificate
            .map(|(own, controller)| background(own.keep_current(controller)));
        let _reaper = background(reap(plane.clone()));
        let _admin = self
            .admin
            .map(|listener| background(admin::run(listener, plane.clone())));
        let closing = CancellationToken::new();
        let acceptor = Acceptor::new(plane.clone(), closing.clone());
        // A socket that was inherited stays open elsewhere, and clients wait in it.
        let is_inherited = self.listeners.iter().all(|listener| listener.is_inherited);
        let listeners: Vec<_> = self
            .listeners
            .into_iter()
            .map(|listener| {
                background(
                    acceptor
                        .clone()
                        .run(listener.socket, !listener.is_inherited),
                )
            })
            .collect();
        stop.cancelled().await;
        if self.is_child {
            // Before the lock is given up: the parent ends then.
            detach::outlive_parent();
        }
        hand_over(self.lock, is_inherited, &plane).await;
        closing.cancel();
        join_all(listeners).await;
        if self.is_child {
            detach::close_stdin();
        }
        drain(&plane, &acceptor).await;
        drop(reporter);
        self.reporter.leave().await;
    }
}

/// The controller to follow, and what is presented to it where it is on another machine.
fn controller(
    settings: &Settings,
) -> Result<(Controller, Option<Arc<OwnCertificate>>), StartError> {
    match (&settings.follow, &settings.identity) {
        (Address::Socket(path), _) => Ok((Controller::local(path.clone()), None)),
        (Address::Network(authority), Some(directory)) => {
            let own = Arc::new(OwnCertificate::open(directory)?);
            let controller = Controller::remote(authority.clone(), &settings.ca, own.clone())?;
            Ok((controller, Some(own)))
        }
        (Address::Network(_), None) => Err(StartError::NoIdentity),
    }
}

/// Gives the lock up. While the next balancer starts, clients are still accepted.
async fn hand_over(lock: Option<Lock>, is_inherited: bool, plane: &DataPlane) {
    let released = match lock.map(Lock::release) {
        Some(Ok(released)) => released,
        Some(Err(error)) => return warn!(%error, "cannot release the lock"),
        None => return,
    };
    if !is_inherited {
        let limit = plane.limits.handover_timeout;
        timeout(limit, released.wait_successor()).await.ok();
    }
}

async fn drain(plane: &DataPlane, acceptor: &Acceptor) {
    info!("draining");
    let ended = async {
        acceptor.drained().await;
        plane.tunnels.close();
        plane.tunnels.wait().await;
    };
    match timeout(plane.limits.drain_timeout, ended).await {
        Ok(()) => info!("drained"),
        Err(_) => warn!(
            connections = plane.clients.connections(),
            tunnels = plane.tunnels.len(),
            "the drain timeout has passed: closing what is still open"
        ),
    }
}

async fn reap(plane: Arc<DataPlane>) {
    let mut ticks = interval(REAP_INTERVAL);
    loop {
        ticks.tick().await;
        plane.reap();
    }
}

fn background(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

fn open(listen: &Listen, follows_draining: bool) -> Result<Listener, StartError> {
    let socket = match listen {
        Listen::Stdin => inherited().map_err(StartError::Stdin)?,
        Listen::Address(address) => {
            bind(*address, follows_draining).map_err(|error| StartError::Bind(*address, error))?
        }
    };
    if let Ok(address) = socket.local_addr() {
        info!(%address, "listening");
    }
    Ok(Listener {
        socket,
        is_inherited: *listen == Listen::Stdin,
    })
}

/// Two balancers may listen on one address only while one hands over to the other.
fn bind(address: SocketAddr, follows_draining: bool) -> io::Result<TcpListener> {
    let socket = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        Ok::<_, io::Error>(socket)
    };
    if !follows_draining {
        socket()?.bind(address)?;
    }
    let socket = socket()?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn inherited() -> io::Result<TcpListener> {
    let stdin = io::stdin();
    if !socket_acceptconn(stdin.as_fd())? {
        return Err(io::Error::other("the socket is not listening"));
    }
    let listener = net::TcpListener::from(stdin.as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
