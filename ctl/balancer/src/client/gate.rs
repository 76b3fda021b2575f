//! What a connection's two halves tell each other: the bytes' side and the requests' side.

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

/// Shared by the bytes' side and the requests' side of one connection.
#[derive(Debug, Default)]
pub struct Gate {
    active: AtomicUsize,
    verdict: AtomicU8,
    malformed: Mutex<Option<Malformed>>,
    reader: AtomicWaker,
    first: SetOnce<()>,
}

/// A request under way, until this is dropped.
#[derive(Debug)]
pub struct Active(Arc<Gate>);

/// What became of a request for another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// HTTP goes on.
    Http,
    /// The protocol was changed.
    Tunnel,
}

const OPEN: u8 = 0;
const HTTP: u8 = 1;
const TUNNEL: u8 = 2;

impl Gate {
    /// A request begins: the connection is not idle.
    pub fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::AcqRel);
        if !self.first.initialized() {
            // Another one may have been the first meanwhile.
            self.first.set(()).ok();
        }
        Active(self.clone())
    }

    /// Waits until the first request has begun.
    pub async fn first_request(&self) {
        self.first.wait().await;
    }

    /// Whether a request is under way.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire) > 0
    }

    /// A request for another protocol passes: what became of it is open.
    pub fn ask(&self) {
        self.verdict.store(OPEN, Ordering::Release);
    }

    /// Tells what became of the request for another protocol.
    pub fn decide(&self, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Http => HTTP,
            Verdict::Tunnel => TUNNEL,
        };
        self.verdict.store(verdict, Ordering::Release);
        self.reader.wake();
    }

    /// What became of it, once that is known.
    pub fn verdict(&self) -> Option<Verdict> {
        match self.verdict.load(Ordering::Acquire) {
            HTTP => Some(Verdict::Http),
            TUNNEL => Some(Verdict::Tunnel),
            _ => None,
        }
    }

    /// Has the reader woken when a request ends or a verdict falls.
    pub fn register(&self, reader: &Waker) {
        self.reader.register(reader);
    }

    /// The next request is malformed and stands here in the place of its bytes.
    pub fn refuse(&self, malformed: Malformed) {
        *self.malformed() = Some(malformed);
    }

    /// The malformed request, if there is one.
    pub fn refused(&self) -> Option<Malformed> {
        *self.malformed()
    }

    fn malformed(&self) -> std::sync::MutexGuard<'_, Option<Malformed>> {
        self.malformed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
        self.0.reader.wake();
    }
}
