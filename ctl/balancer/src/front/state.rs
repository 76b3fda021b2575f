//! What others see and ask of one client connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;

use crate::core::health::{Uptime, uptime};

/// State of one connection, written by its own thread, except for what it is asked to do.
#[derive(Debug)]
pub struct ConnectionState {
    /// Milliseconds of uptime since when no request has been in flight; [`BUSY`] while one is.
    idle_since_ms: AtomicU64,
    is_recycled: AtomicBool,
    is_stopping: AtomicBool,
    idle: AtomicWaker,
}

const BUSY: u64 = u64::MAX;

impl ConnectionState {
    /// For a connection that was accepted now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            idle_since_ms: AtomicU64::new(millis(uptime())),
            is_recycled: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            idle: AtomicWaker::new(),
        })
    }

    /// A request begins: the connection is no longer idle.
    pub fn begin(&self) {
        self.idle_since_ms.store(BUSY, Ordering::Release);
    }

    /// The request has been answered.
    pub fn end(&self, now: Uptime) {
        self.idle_since_ms.store(millis(now), Ordering::Release);
    }

    /// For how long no request has been in flight; `None` while one is.
    pub fn idle_for(&self, now: Uptime) -> Option<Duration> {
        match self.idle_since_ms.load(Ordering::Acquire) {
            BUSY => None,
            since => Some(now.saturating_sub(Duration::from_millis(since))),
        }
    }

    /// Wakes `waker` when the connection is asked to close.
    pub fn register(&self, waker: &Waker) {
        self.idle.register(waker);
    }

    /// Asks the connection to close, because its slot is needed and it is idle.
    pub fn recycle(&self) {
        self.is_recycled.store(true, Ordering::Release);
        self.idle.wake();
    }

    /// Asks the connection to close once it is idle, because the balancer ends.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.idle.wake();
    }

    /// Whether its slot is needed.
    pub fn is_recycled(&self) -> bool {
        self.is_recycled.load(Ordering::Acquire)
    }

    /// Whether the balancer ends.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }
}

fn millis(time: Uptime) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(BUSY - 1)
}
