//! Ejection: a process that refuses connections is left out for a while, longer each time in a row.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::limits::Limits;

/// Time since the program's start; a plain number, so that it fits into an atomic.
pub type Uptime = Duration;

/// Now.
pub fn uptime() -> Uptime {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// What the balancer has itself seen of one process. The controller's view comes by the route table.
#[derive(Debug, Default)]
pub struct Health {
    ejected_until_ms: AtomicU64,
    failures: AtomicU32,
}

impl Health {
    /// Whether the process is to be left out now.
    pub fn is_ejected(&self, now: Uptime) -> bool {
        millis(now) < self.ejected_until_ms.load(Relaxed)
    }

    /// Leaves the process out from now on, for twice as long as the last time. Gives false if it was
    /// out already: requests that fail together count as one failure.
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

    /// Lets the process in again at once, because no other is left; how often it failed is kept.
    pub fn pardon(&self) {
        self.ejected_until_ms.store(0, Relaxed);
    }

    /// The process accepted a connection: it is whole again.
    pub fn succeeded(&self) {
        // Mostly there is nothing to reset, and then the cache line stays shared between the cores.
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
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_failure_in_a_row_doubles_the_pause_up_to_the_limit() {
        let (health, limits) = (Health::default(), Limits::default());
        let mut now = SECOND;
        for pause_ms in [500, 1000, 2000, 4000, 8000, 10_000, 10_000] {
            assert!(health.eject(now, &limits));
            let end = now + Duration::from_millis(pause_ms);
            assert!(health.is_ejected(end - Duration::from_millis(1)));
            assert!(!health.is_ejected(end));
            now = end;
        }
    }

    #[test]
    fn failures_that_come_together_count_once() {
        let (health, limits) = (Health::default(), Limits::default());
        assert!(health.eject(SECOND, &limits));
        assert!(!health.eject(SECOND, &limits));
        assert!(!health.is_ejected(SECOND + limits.eject_min));
    }

    #[test]
    fn success_forgets_and_pardon_only_lets_in() {
        let (health, limits) = (Health::default(), Limits::default());
        health.eject(SECOND, &limits);
        health.pardon();
        assert!(!health.is_ejected(SECOND));
        health.eject(SECOND, &limits);
        assert!(
            health.is_ejected(SECOND + limits.eject_min),
            "the second pause is longer"
        );
        health.succeeded();
        health.eject(SECOND, &limits);
        assert!(
            !health.is_ejected(SECOND + limits.eject_min),
            "the first pause again"
        );
    }
}
