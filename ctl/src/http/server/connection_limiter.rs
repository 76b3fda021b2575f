//! Bounds the number of connections. When all slots are in use, the longest idle connection is evicted: silent connections,
//! which need no token, cannot lock out agents and the sysadmin.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Hands out slots for connections.
#[derive(Clone)]
pub(super) struct ConnectionLimiter {
    slots: Arc<Semaphore>,
    idle: Arc<Idle>,
}

#[derive(Default)]
struct Idle {
    /// Idle connections in the order in which they became idle, keyed by a counter.
    waiting: Mutex<(u64, BTreeMap<u64, CancellationToken>)>,
    became_idle: Notify,
}

impl Idle {
    fn waiting(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, CancellationToken>)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionLimiter {
    /// With `connections` slots.
    pub(super) fn new(connections: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(connections)),
            idle: Arc::default(),
        }
    }

    /// Acquires a slot; waits while all connections have an active request.
    pub(super) async fn acquire(&self) -> ConnectionSlot {
        let permit = loop {
            // Registered before the check, so that no notification is missed.
            let became_idle = self.idle.became_idle.notified();
            if let Ok(permit) = self.slots.clone().try_acquire_owned() {
                break permit;
            }
            let oldest = self.idle.waiting().1.pop_first();
            let evicted = oldest.map(|(_, evict)| evict.cancel());
            tokio::select! {
                permit = self.slots.clone().acquire_owned() => match permit {
                    Ok(permit) => break permit,
                    Err(_) => continue,
                },
                () = became_idle, if evicted.is_none() => {}
            }
        };
        let evict = CancellationToken::new();
        let idle = self.idle.clone();
        ConnectionSlot {
            activity: Arc::new(Activity::new(idle, evict.clone())),
            evict,
            _permit: permit,
        }
    }
}

/// A connection's slot, released when dropped.
pub(super) struct ConnectionSlot {
    activity: Arc<Activity>,
    evict: CancellationToken,
    _permit: OwnedSemaphorePermit,
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
    since: Mutex<u64>,
}

impl Activity {
    fn new(idle: Arc<Idle>, evict: CancellationToken) -> Self {
        let activity = Self {
            idle,
            evict,
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
        waiting.1.insert(now, self.evict.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_idle_connection_is_evicted() {
        let limiter = ConnectionLimiter::new(2);
        let (first, second) = (limiter.acquire().await, limiter.acquire().await);
        // The first has had a request meanwhile, so the second is idle for longer.
        drop(first.activity().begin_request());
        let (gone, kept) = (second.evicted(), first.evict.clone());
        let (_third, ()) = tokio::join!(limiter.acquire(), async move {
            gone.await;
            drop(second);
        });
        assert!(!kept.is_cancelled());
    }

    #[tokio::test]
    async fn an_active_connection_is_not_evicted_until_its_response_is_sent() {
        let limiter = ConnectionLimiter::new(1);
        let only = limiter.acquire().await;
        let body = only
            .activity()
            .begin_request()
            .until_sent(Body::from("answer"));
        let evicted = only.evicted();
        let evict = only.evict.clone();
        let entering = tokio::spawn({
            let limiter = limiter.clone();
            async move { drop(limiter.acquire().await) }
        });
        tokio::task::yield_now().await;
        assert!(!evict.is_cancelled());
        drop(body);
        evicted.await;
        drop(only);
        entering.await.unwrap();
        assert!(
            limiter.idle.waiting().1.is_empty(),
            "no idle connection is left"
        );
    }
}
