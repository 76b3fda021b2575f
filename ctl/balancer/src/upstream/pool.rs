//! Connections to one process that wait for their next request.

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
    /// Sends requests over it. Dropping this closes it once the exchange under way is complete.
    pub sender: SendRequest<RequestBody>,
    /// The task that drives it.
    pub task: AbortHandle,
}

/// Unused connections to one process, the most recently used on top.
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
    /// A connection that is open as far as is known, if there is one. It may need a moment to notice that
    /// its last exchange has ended: wait for it to be ready.
    pub fn take(&self, now: Uptime, timeout: Duration) -> Option<Link> {
        let mut state = self.lock();
        while let Some(Idle { link, since }) = state.idle.pop() {
            if now.saturating_sub(since) >= timeout {
                // All below are older still.
                state.idle.clear();
                return None;
            }
            if !link.sender.is_closed() {
                return Some(link);
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended.
    pub fn put(&self, link: Link, now: Uptime, limits: &Limits) {
        let mut state = self.lock();
        if state.closed || link.sender.is_closed() || state.idle.len() >= limits.upstream_idle {
            return;
        }
        state.idle.push(Idle { link, since: now });
    }

    /// Closes those that have waited too long.
    pub fn reap(&self, now: Uptime, timeout: Duration) {
        self.lock().idle.retain(|idle| {
            now.saturating_sub(idle.since) < timeout && !idle.link.sender.is_closed()
        });
    }

    /// Closes all unused connections; others may come later.
    pub fn clear(&self) {
        self.lock().idle.clear();
    }

    /// Closes all unused connections and keeps none from now on.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.idle.clear();
    }

    /// Keeps connections again.
    pub fn open(&self) {
        self.lock().closed = false;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
