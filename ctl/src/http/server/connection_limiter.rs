//! Bounds the number of connections: in total, and per peer (an IPv4 address, or the /64 of an IPv6 address). When all slots
//! are in use, the longest idle connection is evicted: silent connections, which need no token, cannot lock out agents and
//! the sysadmin. Some more slots are reserved for the workers' addresses.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// All connections.
    pub(super) total: usize,
    /// Connections of one peer.
    pub(super) per_peer: usize,
    /// Additional connections from workers' addresses.
    pub(super) workers: usize,
}

/// The peer has as many active connections as it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// Hands out slots for connections.
#[derive(Clone)]
pub(super) struct ConnectionLimiter {
    slots: Arc<Semaphore>,
    worker_slots: Arc<Semaphore>,
    per_peer: usize,
    peers: Arc<Peers>,
    idle: Arc<Idle>,
}

type Waiting = (u64, BTreeMap<u64, (CancellationToken, Option<IpAddr>)>);

/// Open connections by peer.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

impl Peers {
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a connection of a peer until it is dropped.
struct Counted(Arc<Peers>, IpAddr);

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.0.open();
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

#[derive(Default)]
struct Idle {
    /// Idle connections in the order in which they became idle, keyed by a counter.
    waiting: Mutex<Waiting>,
    became_idle: Notify,
}

impl Idle {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionLimiter {
    /// With these bounds.
    pub(super) fn new(limits: Limits) -> Self {
        let slots = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            slots: slots(limits.total),
            worker_slots: slots(limits.workers),
            per_peer: limits.per_peer,
            peers: Arc::default(),
            idle: Arc::default(),
        }
    }

    /// Acquires a slot; waits while all connections have an active request.
    ///
    /// # Errors
    /// The peer has too many active connections.
    pub(super) async fn acquire(
        &self,
        peer: Option<IpAddr>,
        is_worker: bool,
    ) -> Result<ConnectionSlot, TooMany> {
        let peer = peer.map(network_of);
        let counted = peer.map(|peer| self.count(peer)).transpose()?;
        let reserved = match is_worker && self.slots.available_permits() == 0 {
            true => self.worker_slots.clone().try_acquire_owned().ok(),
            false => None,
        };
        let permit = match reserved {
            Some(permit) => permit,
            None => self.permit().await,
        };
        let evict = CancellationToken::new();
        let idle = self.idle.clone();
        Ok(ConnectionSlot {
            activity: Arc::new(Activity::new(idle, evict.clone(), peer)),
            evict,
            _permit: permit,
            _counted: counted,
        })
    }

    /// Counts a connection of this peer. Beyond its bound, its longest idle connection is evicted.
    fn count(&self, peer: IpAddr) -> Result<Counted, TooMany> {
        let mut open = self.peers.open();
        let count = open.entry(peer).or_default();
        if *count >= self.per_peer {
            let mut waiting = self.idle.waiting();
            let oldest = waiting.1.iter().find(|(_, (_, of))| *of == Some(peer));
            let oldest = oldest.map(|(at, _)| *at).ok_or(TooMany)?;
            if let Some((evict, _)) = waiting.1.remove(&oldest) {
                evict.cancel();
            }
        }
        *count += 1;
        drop(open);
        Ok(Counted(self.peers.clone(), peer))
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        loop {
            // Registered before the check, so that no notification is missed.
            let became_idle = self.idle.became_idle.notified();
            if let Ok(permit) = self.slots.clone().try_acquire_owned() {
                return permit;
            }
            let oldest = self.idle.waiting().1.pop_first();
            let evicted = oldest.map(|(_, (evict, _))| evict.cancel());
            tokio::select! {
                permit = self.slots.clone().acquire_owned() => match permit {
                    Ok(permit) => return permit,
                    Err(_) => continue,
                },
                () = became_idle, if evicted.is_none() => {}
            }
        }
    }
}

/// A connection's slot, released when dropped.
pub(super) struct ConnectionSlot {
    activity: Arc<Activity>,
    evict: CancellationToken,
    _permit: OwnedSemaphorePermit,
    _counted: Option<Counted>,
}

impl ConnectionSlot {
    /// Completes when the idle connection is evicted.
    pub(super) fn evicted(&self) -> impl Future<Output = ()> + Send + 'static {
        self.evict.clone().cancelled_owned()
    }

    /// Tracks whether the connection is idle.
    pub(super) fn activity(&self) -> Arc<Activity> {
        self.activity.clone()
    }
}

/// Whether a connection is idle or has an active request (HTTP/1: at most one).
pub(super) struct Activity {
    idle: Arc<Idle>,
    evict: CancellationToken,
    peer: Option<IpAddr>,
    since: Mutex<u64>,
}

impl Activity {
    fn new(idle: Arc<Idle>, evict: CancellationToken, peer: Option<IpAddr>) -> Self {
        let activity = Self {
            idle,
            evict,
            peer,
            since: Mutex::default(),
        };
        activity.mark_idle();
        activity
    }

    fn since(&self) -> MutexGuard<'_, u64> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark_idle(&self) {
        let mut waiting = self.idle.waiting();
        waiting.0 += 1;
        let now = waiting.0;
        waiting.1.insert(now, (self.evict.clone(), self.peer));
        drop(waiting);
        *self.since() = now;
        self.idle.became_idle.notify_one();
    }

    /// Marks the connection as active until the response's body, wrapped by [`ActiveRequest::until_sent`], is dropped.
    pub(super) fn begin_request(self: Arc<Self>) -> ActiveRequest {
        self.idle.waiting().1.remove(&*self.since());
        ActiveRequest(self)
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.idle.waiting().1.remove(&*self.since());
    }
}

/// An active request.
pub(super) struct ActiveRequest(Arc<Activity>);

impl ActiveRequest {
    /// Wraps the response's body; the request is active until it is dropped.
    pub(super) fn until_sent(self, body: Body) -> Body {
        Body::new(TrackedBody {
            body,
            _active: self,
        })
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.mark_idle();
    }
}

struct TrackedBody {
    body: Body,
    _active: ActiveRequest,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The unit that is bounded: one host may have a whole /64.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => {
            let prefix = u128::from(ip) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests;
