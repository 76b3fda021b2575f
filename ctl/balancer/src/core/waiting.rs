//! Requests that wait: for the first route table, or for a process of their service.
//!
//! Waiting is bounded in time, in number and in memory. When a service has a process again, its waiting requests
//! are released in batches: a process that has just started is not flooded.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::Limits;

/// How often a waiting request checks whether its client is still there, and whether a process that refused
/// connections accepts them now.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Counts the requests that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// A waiting request, counted until this is dropped.
#[derive(Debug)]
pub struct Waiter {
    waiting: Arc<Waiting>,
    bytes: usize,
}

/// The limit that keeps a request from waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitingLimit {
    /// Too many wait already.
    #[error("--max-waiting")]
    Requests,
    /// They hold too much memory.
    #[error("--waiting-bytes")]
    Bytes,
}

impl Waiting {
    /// Counts one more request that holds `bytes`.
    pub fn enter(self: &Arc<Self>, bytes: usize, limits: &Limits) -> Result<Waiter, WaitingLimit> {
        let waiter = Waiter {
            waiting: self.clone(),
            bytes,
        };
        let requests = self.requests.fetch_add(1, Relaxed) + 1;
        let total = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        if requests > limits.max_waiting {
            Err(WaitingLimit::Requests)
        } else if total > limits.waiting_len() {
            Err(WaitingLimit::Bytes)
        } else {
            Ok(waiter)
        }
    }

    /// Requests that wait now.
    pub fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiting.requests.fetch_sub(1, Relaxed);
        self.waiting.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// Releases one service's waiting requests in batches, first come, first served.
#[derive(Debug, Default)]
pub struct Release(OnceLock<Arc<Semaphore>>);

impl Release {
    /// Waits for a place in a batch of `batch` requests.
    pub async fn next(&self, batch: usize) -> Option<OwnedSemaphorePermit> {
        let places = batch.min(Semaphore::MAX_PERMITS);
        let batch = self.0.get_or_init(|| Arc::new(Semaphore::new(places)));
        batch.clone().acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_limited_in_number_and_memory() {
        let limits = Limits {
            max_waiting: 2,
            waiting_bytes: bytesize::ByteSize::b(100),
            ..Limits::default()
        };
        let waiting = Arc::<Waiting>::default();
        let first = waiting.enter(60, &limits).unwrap();
        assert_eq!(waiting.enter(60, &limits).unwrap_err(), WaitingLimit::Bytes);
        let _second = waiting.enter(40, &limits).unwrap();
        assert_eq!(
            waiting.enter(0, &limits).unwrap_err(),
            WaitingLimit::Requests
        );
        assert_eq!(waiting.requests(), 2);
        drop(first);
        waiting.enter(60, &limits).unwrap();
        assert_eq!(waiting.requests(), 1);
    }
}
