//! The balancer as a whole: build, run, drain.

use std::{
    io,
    net::{self, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use rustix::{
    net::sockopt::socket_acceptconn,
    process::{Resource, getrlimit, setrlimit},
};
use tokio::{
    net::{TcpListener, UnixListener},
    time::{interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use crate::{
    admin,
    client::accept::Acceptor,
    follow::{Follower, cache::Cache},
    lock::{Lock, LockError},
    plane::Plane,
    settings::{Listen, Settings},
};

/// How often unused connections to processes are looked through.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// A balancer with its listeners, ready to run.
#[derive(Debug)]
pub struct Balancer {
    plane: Arc<Plane>,
    follower: Follower,
    listeners: Vec<TcpListener>,
    admin: Option<UnixListener>,
    _lock: Option<Lock>,
}

/// Why the balancer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// An address cannot be listened on.
    #[error("cannot listen on {0}")]
    Bind(SocketAddr, #[source] io::Error),
    /// Descriptor 0 is no listening TCP socket.
    #[error("standard input is no listening TCP socket (--listen stdin)")]
    Stdin(#[source] io::Error),
    /// The admin socket cannot be made.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
}

impl Balancer {
    /// Takes the lock, listens, and puts the kept routes in force. Needs a tokio runtime around it.
    pub async fn build(settings: &Settings) -> Result<Self, StartError> {
        let lock = settings.lock.as_deref().map(Lock::take).transpose()?;
        let mut listeners = Vec::new();
        for listen in &settings.listen {
            listeners.push(open(listen).await?);
        }
        let admin = settings.admin.as_deref().map(admin::bind).transpose()?;
        let plane = Plane::new(settings.limits.clone(), settings.trust_forwarded);
        let plane = Arc::new(plane);
        let cache = settings.routes.as_deref().map(Cache::new);
        let follower = Follower::start(plane.clone(), settings.follow.clone(), cache);
        Ok(Self {
            plane,
            follower,
            listeners,
            admin,
            _lock: lock,
        })
    }

    /// The addresses that are listened on, in the settings' order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter();
        listeners.filter_map(|l| l.local_addr().ok()).collect()
    }

    /// What requests share.
    pub fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }

    /// Serves until `stop` is cancelled, then lets what is under way end, as long as it may take.
    pub async fn run(self, stop: CancellationToken) {
        let plane = self.plane;
        // Whatever else runs ends when this function does.
        let _follower = background(self.follower.run());
        let _reaper = background(reap(plane.clone()));
        let _admin = self
            .admin
            .map(|listener| background(admin::run(listener, plane.clone())));
        let acceptor = Acceptor::new(plane.clone(), stop.clone());
        let _listeners: Vec<_> = self
            .listeners
            .into_iter()
            .map(|listener| background(acceptor.clone().run(listener)))
            .collect();
        stop.cancelled().await;
        drain(&plane, &acceptor).await;
    }
}

/// Raises the number of descriptors to what the system allows: two are needed per request under way.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "cannot raise the number of open files");
    }
}

async fn drain(plane: &Plane, acceptor: &Acceptor) {
    info!("stopping: requests under way may end");
    let ended = async {
        acceptor.drained().await;
        plane.tunnels.close();
        plane.tunnels.wait().await;
    };
    match timeout(plane.limits.drain_timeout, ended).await {
        Ok(()) => info!("all requests have ended"),
        Err(_) => warn!(
            connections = plane.clients.connections(),
            tunnels = plane.tunnels.len(),
            "some did not end in time and are cut off"
        ),
    }
}

async fn reap(plane: Arc<Plane>) {
    let mut ticks = interval(REAP_INTERVAL);
    loop {
        ticks.tick().await;
        plane.reap();
    }
}

fn background(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

async fn open(listen: &Listen) -> Result<TcpListener, StartError> {
    let listener = match listen {
        Listen::Stdin => inherited().map_err(StartError::Stdin)?,
        Listen::Address(address) => TcpListener::bind(address)
            .await
            .map_err(|error| StartError::Bind(*address, error))?,
    };
    if let Ok(address) = listener.local_addr() {
        info!(%address, "listening");
    }
    Ok(listener)
}

fn inherited() -> io::Result<TcpListener> {
    let stdin = io::stdin();
    if !socket_acceptconn(stdin.as_fd())? {
        return Err(io::Error::other("the socket does not listen"));
    }
    let listener = net::TcpListener::from(stdin.as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
