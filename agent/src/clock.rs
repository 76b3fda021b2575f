//! The wall clock for timestamps, and a monotonic clock for delays.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tucano_api::units::Timestamp;

/// The time of day.
pub fn timestamp() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// Monotonic time since the agent's start.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts at zero.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The instant at which [`Self::elapsed`] reaches `moment`.
    pub fn instant(self, moment: Duration) -> Instant {
        self.0 + moment
    }
}
