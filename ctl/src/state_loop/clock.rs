//! The planner's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tucano_api::units::{Span, Timestamp};

/// Wall clock at the start, monotonic from there: setting the system clock expires no lease.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started_at: Timestamp,
    started: Instant,
}

impl Clock {
    /// Starts a clock.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            started_at: Timestamp(Span(since_epoch).as_millis()),
            started: Instant::now(),
        }
    }

    /// When it was started.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.started_at.after(Span(self.started.elapsed()))
    }

    /// The instant at which this clock shows `time`.
    pub fn instant_of(&self, time: Timestamp) -> Instant {
        self.started + time.since(self.started_at).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_and_instants_agree() {
        let clock = Clock::start();
        let later = clock.started_at().after(Span::secs(5));
        assert_eq!(clock.instant_of(later) - clock.started, Span::secs(5).0);
        assert_eq!(clock.instant_of(Timestamp(0)), clock.started);
        assert!(clock.now() >= clock.started_at());
    }
}
