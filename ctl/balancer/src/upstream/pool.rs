//! Idle connections to one process.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;

use super::health::Uptime;
use crate::{limits::Limits, request_body::RequestBody};

/// One open connection.
#[derive(Debug)]
pub struct Link {
    /// Sends requests. Dropping it closes the connection after the exchange in progress.
    pub sender: SendRequest<RequestBody>,
    /// The task that drives it.
    pub task: AbortHandle,
}

/// Idle connections to one process, the most recently used last.
#[derive(Debug, Default)]
pub struct Pool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Idle>,
    closed: bool,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Uptime,
}

impl Pool {
    /// An idle connection that is open as far as is known. Wait for it to be ready: the end of its last
    /// exchange may not have been processed yet.
    pub fn take(&self, now: Uptime, timeout: Duration) -> Option<Link> {
        let mut state = self.lock();
        while let Some(Idle { link, since }) = state.idle.pop() {
            if now.saturating_sub(since) >= timeout {
                // The ones below are older.
                state.idle.clear();
                return None;
            }
            if !link.sender.is_closed() {
                return Some(link);
            }
        }
        None
    }

    /// Adds a connection whose exchange is complete.
    pub fn put(&self, link: Link, now: Uptime, limits: &Limits) {
        let mut state = self.lock();
        if state.closed || link.sender.is_closed() || state.idle.len() >= limits.upstream_idle {
            return;
        }
        state.idle.push(Idle { link, since: now });
    }

    /// Closes connections that have been idle for `timeout`.
    pub fn reap(&self, now: Uptime, timeout: Duration) {
        self.lock().idle.retain(|idle| {
            now.saturating_sub(idle.since) < timeout && !idle.link.sender.is_closed()
        });
    }

    /// Closes all idle connections. The pool stays open.
    pub fn clear(&self) {
        self.lock().idle.clear();
    }

    /// Closes all idle connections and accepts none until [`Self::open`].
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.idle.clear();
    }

    /// Accepts connections again.
    pub fn open(&self) {
        self.lock().closed = false;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
