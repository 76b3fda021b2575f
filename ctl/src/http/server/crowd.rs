//! Who is connected, bounded. When all places are taken, whoever has been idle for the longest time makes room: silent
//! connections, which need no token, cannot keep the agents' reports and the sysadmin out.

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

/// The places for connections.
#[derive(Clone)]
pub(super) struct Crowd {
    places: Arc<Semaphore>,
    idle: Arc<Idle>,
}

#[derive(Default)]
struct Idle {
    /// Idle connections by when they became so: a number that only grows.
    waiting: Mutex<(u64, BTreeMap<u64, CancellationToken>)>,
    one_more: Notify,
}

impl Idle {
    fn waiting(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, CancellationToken>)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Crowd {
    /// Places for `connections`.
    pub(super) fn new(connections: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(connections)),
            idle: Arc::default(),
        }
    }

    /// A place; waits when all are taken by connections with a request under way.
    pub(super) async fn enter(&self) -> Place {
        let permit = loop {
            // Registered before the look, so that none is missed.
            let one_more = self.idle.one_more.notified();
            if let Ok(permit) = self.places.clone().try_acquire_owned() {
                break permit;
            }
            let oldest = self.idle.waiting().1.pop_first();
            let leaving = oldest.map(|(_, leave)| leave.cancel());
            tokio::select! {
                permit = self.places.clone().acquire_owned() => match permit {
                    Ok(permit) => break permit,
                    Err(_) => continue,
                },
                () = one_more, if leaving.is_none() => {}
            }
        };
        let leave = CancellationToken::new();
        let idle = self.idle.clone();
        Place {
            presence: Arc::new(Presence::new(idle, leave.clone())),
            leave,
            _permit: permit,
        }
    }
}

/// A connection's place, given back when dropped.
pub(super) struct Place {
    presence: Arc<Presence>,
    leave: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Ends when the connection, being idle, has to make room.
    pub(super) fn evicted(&self) -> impl Future<Output = ()> + Send + 'static {
        self.leave.clone().cancelled_owned()
    }

    /// Whether the connection is idle is told through this.
    pub(super) fn presence(&self) -> Arc<Presence> {
        self.presence.clone()
    }
}

/// Whether a connection waits for a request (HTTP/1: one at a time), or has one under way.
pub(super) struct Presence {
    idle: Arc<Idle>,
    leave: CancellationToken,
    since: Mutex<u64>,
}

impl Presence {
    fn new(idle: Arc<Idle>, leave: CancellationToken) -> Self {
        let presence = Self {
            idle,
            leave,
            since: Mutex::default(),
        };
        presence.rest();
        presence
    }

    fn since(&self) -> MutexGuard<'_, u64> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&self) {
        let mut waiting = self.idle.waiting();
        waiting.0 += 1;
        let now = waiting.0;
        waiting.1.insert(now, self.leave.clone());
        drop(waiting);
        *self.since() = now;
        self.idle.one_more.notify_one();
    }

    /// A request is under way until the answer's body, which this is made part of by [`Busy::until_sent`], is gone.
    pub(super) fn busy(self: Arc<Self>) -> Busy {
        self.idle.waiting().1.remove(&*self.since());
        Busy(self)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.idle.waiting().1.remove(&*self.since());
    }
}

/// A request under way.
pub(super) struct Busy(Arc<Presence>);

impl Busy {
    /// The same body; the request is under way as long as it is there.
    pub(super) fn until_sent(self, body: Body) -> Body {
        Body::new(Sending { body, _busy: self })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
    }
}

struct Sending {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Sending {
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
    async fn who_is_idle_longest_makes_room() {
        let crowd = Crowd::new(2);
        let (first, second) = (crowd.enter().await, crowd.enter().await);
        // The first has been busy meanwhile, so the second is idle for longer.
        drop(first.presence().busy());
        let (gone, kept) = (second.evicted(), first.leave.clone());
        let (_third, ()) = tokio::join!(crowd.enter(), async move {
            gone.await;
            drop(second);
        });
        assert!(!kept.is_cancelled());
    }

    #[tokio::test]
    async fn who_is_busy_stays_until_its_answer_is_sent() {
        let crowd = Crowd::new(1);
        let only = crowd.enter().await;
        let body = only.presence().busy().until_sent(Body::from("answer"));
        let evicted = only.evicted();
        let leave = only.leave.clone();
        let entering = tokio::spawn({
            let crowd = crowd.clone();
            async move { drop(crowd.enter().await) }
        });
        tokio::task::yield_now().await;
        assert!(!leave.is_cancelled());
        drop(body);
        evicted.await;
        drop(only);
        entering.await.unwrap();
        assert!(crowd.idle.waiting().1.is_empty(), "nobody is left");
    }
}
