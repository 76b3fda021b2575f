//! The balancer as a whole: build, run, drain.

use std::{
    io,
    net::{self, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
};

use rustix::net::sockopt::socket_acceptconn;
use tokio::{
    net::{TcpSocket, UnixListener},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, info, warn};

use crate::{
    admin, detach,
    errors::chain,
    follow::{
        Follower,
        cache::Cache,
        certificate::OwnCertificate,
        controller::{Address, Controller},
        report::Reporter,
    },
    front::accept::{Acceptor, Listener},
    lock::{Lock, LockError},
    plane::DataPlane,
    settings::{Listen, Settings},
    worker::threads::Threads,
};

/// Clients that wait to be accepted on one address.
const BACKLOG: u32 = 1024;

/// A balancer with its listeners, ready to run.
#[derive(Debug)]
pub struct Balancer {
    plane: Arc<DataPlane>,
    follower: Follower,
    reporter: Reporter,
    /// Of a balancer on another machine than the controller's.
    certificate: Option<(Arc<OwnCertificate>, Controller)>,
    /// Those of each thread.
    listeners: Vec<Vec<Listener>>,
    admin: Option<UnixListener>,
    lock: Option<Lock>,
    is_child: bool,
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
    /// A thread cannot be started.
    #[error("cannot start {0} threads (--threads)")]
    Threads(usize, #[source] io::Error),
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
        let threads = settings.threads();
        let listeners = open_all(&settings.listen, threads, follows_draining)?;
        if let Some(lock) = &mut lock {
            lock.listening()?;
        }
        let admin = settings.admin.as_deref().map(admin::bind).transpose()?;
        let plane = DataPlane::new(settings.limits.clone(), settings.trust_forwarded, threads);
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
        let first = self.listeners.iter().take(1).flatten();
        first
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
        let _admin = self
            .admin
            .map(|listener| background(admin::run(listener, plane.clone())));
        let closing = CancellationToken::new();
        let acceptor = Acceptor::new(plane.clone(), closing.clone());
        // A socket that was inherited stays open elsewhere, and clients wait in it.
        let mut all = self.listeners.iter().flatten();
        let is_inherited = all.all(|listener| listener.is_inherited);
        let count = self.listeners.len();
        let mut threads = match Threads::start(&acceptor, self.listeners) {
            Ok(threads) => threads,
            Err(error) => return error!(cause = %chain(&StartError::Threads(count, error))),
        };
        stop.cancelled().await;
        if self.is_child {
            // Before the lock is given up: the parent ends then.
            detach::outlive_parent();
        }
        hand_over(self.lock, is_inherited, &plane).await;
        closing.cancel();
        acceptor.stop_all();
        threads.stopped_accepting().await;
        if self.is_child {
            detach::close_stdin();
        }
        drain(&plane, &acceptor).await;
        threads.end().await;
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

fn background(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// The sockets of each thread: of its own, and in an order of its own, where the balancer binds them; the inherited ones are
/// shared by all.
fn open_all(
    listen: &[Listen],
    threads: usize,
    follows_draining: bool,
) -> Result<Vec<Vec<Listener>>, StartError> {
    let mut all: Vec<Vec<Listener>> = (0..threads).map(|_| Vec::new()).collect();
    for listen in listen {
        let sockets = open(listen, threads, follows_draining)?;
        if let Some(Ok(address)) = sockets.first().map(net::TcpListener::local_addr) {
            info!(%address, "listening");
        }
        for (listeners, socket) in all.iter_mut().zip(sockets) {
            listeners.push(Listener {
                socket,
                is_inherited: *listen == Listen::Stdin,
            });
        }
    }
    Ok(all)
}

fn open(
    listen: &Listen,
    threads: usize,
    follows_draining: bool,
) -> Result<Vec<net::TcpListener>, StartError> {
    match listen {
        Listen::Stdin => {
            let inherited = (0..threads).map(|_| inherited()).collect::<Result<_, _>>();
            inherited.map_err(StartError::Stdin)
        }
        Listen::Address(address) => bind(*address, threads, follows_draining)
            .map_err(|error| StartError::Bind(*address, error)),
    }
}

/// Sockets on one address, among which the kernel distributes clients. Two balancers may listen on it only while one hands
/// over to the other.
fn bind(
    mut address: SocketAddr,
    count: usize,
    follows_draining: bool,
) -> io::Result<Vec<net::TcpListener>> {
    let socket = |address| {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        Ok::<_, io::Error>(socket)
    };
    if !follows_draining {
        socket(address)?.bind(address)?;
    }
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = socket(address)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        // The others get the port that the first one got.
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    let listening = sockets
        .into_iter()
        .map(|socket| socket.listen(BACKLOG)?.into_std());
    listening.collect()
}

fn inherited() -> io::Result<net::TcpListener> {
    let stdin = io::stdin();
    if !socket_acceptconn(stdin.as_fd())? {
        return Err(io::Error::other("the socket is not listening"));
    }
    let listener = net::TcpListener::from(stdin.as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    Ok(listener)
}
