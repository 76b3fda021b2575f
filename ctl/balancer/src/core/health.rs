//! Ejection: a process that refuses connections is excluded for a while, longer after each failure in a row.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::limits::Limits;

/// Time since the program's start, which fits into an atomic.
pub type Uptime = Duration;

/// Now.
pub fn uptime() -> Uptime {
    uptime_at(Instant::now())
}

/// At `instant`.
pub fn uptime_at(instant: Instant) -> Uptime {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    instant.saturating_duration_since(*START)
}

/// The balancer's own observations of one process. The controller's view arrives with the route table.
#[derive(Debug, Default)]
pub struct Health {
    ejected_until_ms: AtomicU64,
    failures: AtomicU32,
}

impl Health {
    /// Whether the process is excluded at `now`.
    pub fn is_ejected(&self, now: Uptime) -> bool {
        millis(now) < self.ejected_until_ms.load(Relaxed)
    }

    /// Excludes the process from `now` on, for twice as long as the last time. Returns false if it was
    /// excluded already: concurrent failures count once.
    pub fn eject(&self, now: Uptime, limits: &Limits) -> bool {
        let until = self.ejected_until_ms.load(Relaxed);
        if millis(now) < until {
            return false;
        }
        let failures = self.failures.load(Relaxed).saturating_add(1);
        let next = millis(now + pause(failures, limits));
        let won = self
            .ejected_until_ms
            .compare_exchange(until, next, Relaxed, Relaxed)
            .is_ok();
        if won {
            self.failures.store(failures, Relaxed);
        }
        won
    }

    /// Ends the exclusion at once, because no other process is left. The failure count is kept.
    pub fn uneject(&self) {
        self.ejected_until_ms.store(0, Relaxed);
    }

    /// The process accepted a connection: resets the failure count.
    pub fn succeeded(&self) {
        // Usually there is nothing to reset; not writing keeps the cache line shared between cores.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.ejected_until_ms.store(0, Relaxed);
        }
    }
}

fn pause(failures: u32, limits: &Limits) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    limits
        .eject_min
        .saturating_mul(1 << doublings)
        .min(limits.eject_max)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
