//! Reports to the controller: which draining processes have no request in flight, and the counters.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info};
use tucano_api::balancer::BalancerReport;

use super::{
    controller::Controller,
    poll::{self, PollError},
};
use crate::{
    errors::chain,
    metrics,
    plane::{DataPlane, Drains},
};

/// Longest time between two reports, and longest pause after a failed one.
const INTERVAL: Duration = Duration::from_secs(5);
/// Pause after the first failed report; it doubles up to [`INTERVAL`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// How often draining processes with requests in flight are looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Time for the last report.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reports to the controller.
#[derive(Debug, Clone)]
pub struct Reporter {
    plane: Arc<DataPlane>,
    controller: Controller,
}

impl Reporter {
    /// Reports to this controller.
    pub fn new(plane: Arc<DataPlane>, controller: Controller) -> Self {
        Self { plane, controller }
    }

    /// Reports forever: at once when a process is drained, else every few seconds.
    pub async fn run(self) {
        let mut pause = PAUSE_MIN;
        loop {
            let drains = self.plane.drains();
            match self.send(drains.clone(), false).await {
                Ok(()) => {
                    pause = PAUSE_MIN;
                    self.wait_changed(drains).await;
                }
                Err(error) => {
                    self.note_failure(&error, pause);
                    sleep(pause).await;
                    pause = (pause * 2).min(INTERVAL);
                }
            }
        }
    }

    /// The last report: all connections have ended.
    pub async fn leave(&self) {
        let last = self.send(self.plane.drains(), true);
        if let Ok(Err(error)) = timeout(LEAVE_TIMEOUT, last).await {
            debug!(cause = %chain(&error), "the last report failed");
        }
    }

    fn note_failure(&self, error: &PollError, pause: Duration) {
        let cause = chain(error);
        match error {
            PollError::Refused(_) if pause == PAUSE_MIN => {
                info!(%cause, "replaced processes drain for their whole drain time");
            }
            _ => debug!(%cause, "a report failed"),
        }
    }

    /// Returns when there is something new to report, or after the interval.
    async fn wait_changed(&self, reported: Drains) {
        let deadline = Instant::now() + INTERVAL;
        let mut changes = self.plane.changes();
        loop {
            let now = self.plane.drains();
            if now != reported || Instant::now() >= deadline {
                return;
            }
            let next_look = match now.some_in_flight {
                true => deadline.min(Instant::now() + CHECK_INTERVAL),
                false => deadline,
            };
            tokio::select! {
                () = sleep_until(next_look) => {}
                changed = changes.changed() => changed.unwrap_or_default(),
            }
        }
    }

    async fn send(&self, drains: Drains, leaving: bool) -> Result<(), PollError> {
        let report = BalancerReport {
            balancer: self.controller.balancer_id()?,
            table: drains.table,
            drained: drains.drained,
            leaving,
            metrics: metrics::read(&self.plane),
        };
        poll::report(&self.controller, &report).await
    }
}
