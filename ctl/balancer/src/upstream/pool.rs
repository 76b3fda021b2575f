//! Idle connections to one process.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;

use super::{health::Uptime, io::EscapedTarget};
use crate::{limits::Limits, request_body::RequestBody};

/// Which idle connections a request may be sent over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Any: if the process closes it meanwhile, the request is sent again.
    Any,
    /// Only one that the process is not about to close, as far as can be known: it has carried several requests
    /// or has stayed open for [`SETTLED_AFTER`], and has been idle for less than `--upstream-reuse-timeout`.
    Settled,
}

/// A process that closes connections after each response has closed by now.
pub const SETTLED_AFTER: Duration = Duration::from_millis(50);

/// One open connection.
#[derive(Debug)]
pub struct Link {
    /// Whether it has carried more than one request.
    pub is_reused: bool,
    /// Announces a target that has to be restored.
    pub escaped: EscapedTarget,
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

impl Idle {
    fn is_settled(&self, now: Uptime, limits: &Limits) -> bool {
        let idle = now.saturating_sub(self.since);
        idle < limits.upstream_reuse_timeout && (self.link.is_reused || idle >= SETTLED_AFTER)
    }
}

impl Pool {
    /// An idle connection that is open as far as is known. Wait for it to be ready: the end of its last
    /// exchange may not have been processed yet.
    pub fn take(&self, now: Uptime, reuse: Reuse, limits: &Limits) -> Option<Link> {
        let mut state = self.lock();
        for place in (0..state.idle.len()).rev() {
            let idle = &state.idle[place];
            if now.saturating_sub(idle.since) >= limits.upstream_idle_timeout {
                // The ones below are older.
                state.idle.drain(..=place);
                return None;
            }
            if idle.link.sender.is_closed() {
                state.idle.remove(place);
            } else if reuse == Reuse::Any || idle.is_settled(now, limits) {
                return Some(state.idle.remove(place).link);
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
