//! Timeouts of one client connection.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use crate::limits::Limits;

/// How long a client is waited for.
#[derive(Debug)]
pub struct Timeouts {
    /// For a complete head.
    pub head: Duration,
    /// For a request.
    pub idle: Duration,
    /// For reading a response.
    pub write: Duration,
    /// For a response after the client has closed its sending direction.
    pub half_close: Duration,
    /// For the client's close after the balancer's.
    pub linger: Duration,
    /// How much of what the client sends meanwhile is discarded.
    pub linger_len: usize,
}

/// What is being waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A request.
    Idle,
    /// The rest of a head.
    Head,
    /// The client to read.
    Write,
    /// A response for a client that sends nothing more.
    Close,
    /// The client's close.
    Linger,
}

/// A timeout that restarts when another event is awaited.
#[derive(Debug, Default)]
pub struct Timer(Option<(Wait, Pin<Box<Sleep>>)>);

impl Timeouts {
    /// The timeouts of these limits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            head: limits.head_timeout,
            idle: limits.idle_timeout,
            write: limits.write_timeout,
            half_close: limits.half_close_timeout,
            linger: limits.linger_timeout,
            linger_len: limits.linger_len(),
        }
    }
}

impl Timer {
    /// Completes `limit` after the first poll with this `wait`.
    pub fn poll(&mut self, cx: &mut Context<'_>, wait: Wait, limit: Duration) -> Poll<()> {
        if self.0.as_ref().is_none_or(|(running, _)| *running != wait) {
            self.0 = Some((wait, Box::pin(sleep(limit))));
        }
        match &mut self.0 {
            Some((_, sleep)) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Stops it; the next poll starts it again.
    pub fn stop(&mut self) {
        self.0 = None;
    }

    /// Whether something is being waited for.
    pub fn is_running(&self) -> bool {
        self.0.is_some()
    }
}
