//! State of one client connection, shared by its IO and its request path.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;
use tokio::sync::SetOnce;

use super::framing::Malformed;

/// Shared by the IO and the request path of one connection.
#[derive(Debug, Default)]
pub struct ConnectionState {
    active: AtomicUsize,
    outcome: AtomicU8,
    malformed: Mutex<Option<Malformed>>,
    reader: AtomicWaker,
    first: SetOnce<()>,
}

/// A request in flight, until this is dropped.
#[derive(Debug)]
pub struct ActiveRequest(Arc<ConnectionState>);

/// The outcome of an upgrade request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeOutcome {
    /// The connection continues with HTTP.
    Http,
    /// The protocol has been switched.
    Tunnel,
}

const OPEN: u8 = 0;
const HTTP: u8 = 1;
const TUNNEL: u8 = 2;

impl ConnectionState {
    /// A request begins: the connection is no longer idle.
    pub fn begin(self: &Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::AcqRel);
        if !self.first.initialized() {
            // It may have been set concurrently.
            self.first.set(()).ok();
        }
        ActiveRequest(self.clone())
    }

    /// Waits until the first request has begun.
    pub async fn first_request(&self) {
        self.first.wait().await;
    }

    /// Whether a request is in flight.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire) > 0
    }

    /// A request for another protocol passes: what became of it is open.
    pub fn ask(&self) {
        self.outcome.store(OPEN, Ordering::Release);
    }

    /// Tells what became of the request for another protocol.
    pub fn decide(&self, outcome: UpgradeOutcome) {
        let outcome = match outcome {
            UpgradeOutcome::Http => HTTP,
            UpgradeOutcome::Tunnel => TUNNEL,
        };
        self.outcome.store(outcome, Ordering::Release);
        self.reader.wake();
    }

    /// What became of it, once that is known.
    pub fn outcome(&self) -> Option<UpgradeOutcome> {
        match self.outcome.load(Ordering::Acquire) {
            HTTP => Some(UpgradeOutcome::Http),
            TUNNEL => Some(UpgradeOutcome::Tunnel),
            _ => None,
        }
    }

    /// Wakes `reader` when a request ends or an upgrade is decided.
    pub fn register(&self, reader: &Waker) {
        self.reader.register(reader);
    }

    /// Records why the next request is malformed.
    pub fn refuse(&self, malformed: Malformed) {
        *self.malformed() = Some(malformed);
    }

    /// Why the request is malformed, if it is.
    pub fn refused(&self) -> Option<Malformed> {
        *self.malformed()
    }

    fn malformed(&self) -> std::sync::MutexGuard<'_, Option<Malformed>> {
        self.malformed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
        self.0.reader.wake();
    }
}
