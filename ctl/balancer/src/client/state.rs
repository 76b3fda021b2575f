//! State of one client connection, shared by its IO and its request path.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, SetOnce};
use tokio_util::sync::CancellationToken;

use super::framing::Malformed;
use crate::upstream::health::{Uptime, uptime};

/// Shared by the IO and the request path of one connection.
#[derive(Debug, Default)]
pub struct ConnectionState {
    active: AtomicUsize,
    /// Number of requests that have begun.
    begun: AtomicU64,
    /// Twice the number of the request whose upgrade was decided last, plus 1 if it was switched.
    decided: AtomicU64,
    malformed: Mutex<Option<Malformed>>,
    interim: Interim,
    over_limit: AtomicBool,
    reader: AtomicWaker,
    first: SetOnce<()>,
    /// Milliseconds of uptime since when no request has been in flight.
    idle_since_ms: AtomicU64,
    recycled: CancellationToken,
}

/// Interim responses (1xx) that are to be written before the response.
#[derive(Debug, Default)]
struct Interim {
    queued: Mutex<Vec<u8>>,
    is_queued: AtomicBool,
    written: Notify,
}

/// A request in flight, until this is dropped.
#[derive(Debug)]
pub struct ActiveRequest {
    connection: Arc<ConnectionState>,
    /// The position among the connection's requests, from 1.
    number: u64,
}

/// The outcome of an upgrade request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeOutcome {
    /// The connection continues with HTTP.
    Http,
    /// The protocol has been switched.
    Tunnel,
}

impl ConnectionState {
    /// For a connection that was accepted now.
    pub fn new() -> Arc<Self> {
        let state = Self::default();
        state.note_idle();
        Arc::new(state)
    }

    /// A request begins: the connection is no longer idle.
    pub fn begin(self: &Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::AcqRel);
        if !self.first.initialized() {
            // It may have been set concurrently.
            self.first.set(()).ok();
        }
        ActiveRequest {
            connection: self.clone(),
            number: self.begun.fetch_add(1, Ordering::AcqRel) + 1,
        }
    }

    /// Waits until the first request has begun.
    pub async fn first_request(&self) {
        self.first.wait().await;
    }

    /// Whether a request is in flight.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire) > 0
    }

    /// Number of requests that have begun.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// For how long no request has been in flight; `None` while one is.
    pub fn idle_for(&self, now: Uptime) -> Option<Duration> {
        let since = Duration::from_millis(self.idle_since_ms.load(Ordering::Acquire));
        (!self.is_active()).then(|| now.saturating_sub(since))
    }

    /// The outcome of the upgrade that request `number` asked for, once it is decided.
    pub fn outcome(&self, number: u64) -> Option<UpgradeOutcome> {
        let decided = self.decided.load(Ordering::Acquire);
        (decided / 2 == number).then_some(match decided % 2 {
            0 => UpgradeOutcome::Http,
            _ => UpgradeOutcome::Tunnel,
        })
    }

    /// Wakes `reader` when a request ends or an upgrade is decided.
    pub fn register(&self, reader: &Waker) {
        self.reader.register(reader);
    }

    /// Records why the next request is malformed.
    pub fn refuse(&self, malformed: Malformed) {
        *lock(&self.malformed) = Some(malformed);
    }

    /// Why the request is malformed, if it is.
    pub fn refused(&self) -> Option<Malformed> {
        *lock(&self.malformed)
    }

    /// Asks the connection to close, because its slot is needed and it is idle.
    pub fn recycle(&self) {
        self.recycled.cancel();
    }

    /// The client's address has too many connections: the first request is refused.
    pub fn set_over_limit(&self) {
        self.over_limit.store(true, Ordering::Release);
    }

    /// Whether the client's address has too many connections.
    pub fn is_over_limit(&self) -> bool {
        self.over_limit.load(Ordering::Acquire)
    }

    /// Whether the connection has been asked to close.
    pub fn is_recycled(&self) -> bool {
        self.recycled.is_cancelled()
    }

    /// Waits until the connection is asked to close.
    pub async fn wait_recycled(&self) {
        self.recycled.cancelled().await;
    }

    /// Queues an interim response, a complete head.
    pub fn queue_interim(&self, head: &[u8]) {
        lock(&self.interim.queued).extend_from_slice(head);
        self.interim.is_queued.store(true, Ordering::Release);
        self.reader.wake();
    }

    /// Queued interim responses, to be written now.
    pub fn take_interim(&self) -> Option<Vec<u8>> {
        self.interim
            .is_queued
            .load(Ordering::Acquire)
            .then(|| std::mem::take(&mut *lock(&self.interim.queued)))
    }

    /// Everything that was taken has been written.
    pub fn interim_written(&self) {
        if lock(&self.interim.queued).is_empty() {
            self.interim.is_queued.store(false, Ordering::Release);
            self.interim.written.notify_waiters();
        }
    }

    /// Waits until all interim responses have been written: the response must not overtake them.
    pub async fn wait_interim_written(&self) {
        loop {
            let mut written = std::pin::pin!(self.interim.written.notified());
            written.as_mut().enable();
            if !self.interim.is_queued.load(Ordering::Acquire) {
                return;
            }
            written.await;
        }
    }

    fn note_idle(&self) {
        let now = u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX);
        self.idle_since_ms.store(now, Ordering::Release);
    }
}

impl ActiveRequest {
    /// Decides this request's upgrade, if it asked for one.
    pub fn decide(&self, outcome: UpgradeOutcome) {
        let switched = u64::from(outcome == UpgradeOutcome::Tunnel);
        let decided = self.number * 2 + switched;
        self.connection.decided.store(decided, Ordering::Release);
        self.connection.reader.wake();
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.connection.note_idle();
        self.connection.active.fetch_sub(1, Ordering::AcqRel);
        self.connection.reader.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
