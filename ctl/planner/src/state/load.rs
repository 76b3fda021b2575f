//! What a node's load means for the share of requests that its processes get.

use tucano_api::agent::NodeMetrics;

/// Weight of a node that has nothing to do.
const IDLE: f64 = 100.0;
/// Weight of a saturated node: it still answers, or it would not be routed to.
const SATURATED: f64 = 20.0;
/// Weights are multiples of this, so that the table does not change with each report.
const STEP: f64 = 20.0;
/// How far the load must lead away from the present weight before it changes: more than half a step, or a
/// load between two steps would make it jump to and fro.
const HYSTERESIS: f64 = 15.0;
/// Share of the newest report in the average that smooths short bursts.
const NEWEST: f64 = 0.25;

/// The load of a node over its last reports.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    busy: Option<f64>,
    weight: u32,
}

impl Load {
    /// Share of requests for the node's processes, relative to others: 20 to 100.
    pub(crate) fn weight(self) -> u32 {
        if self.busy.is_some() {
            self.weight
        } else {
            IDLE as u32
        }
    }

    /// Takes a report in. Whether the weight has changed.
    pub(crate) fn observe(&mut self, metrics: &NodeMetrics) -> bool {
        let newest = busy(metrics);
        let busy = match self.busy {
            Some(average) => average + NEWEST * (newest - average),
            None => newest,
        };
        let exact = IDLE - (IDLE - SATURATED) * busy;
        let before = self.weight();
        let first = self.busy.replace(busy).is_none();
        if first || (exact - f64::from(before)).abs() > HYSTERESIS {
            self.weight = ((exact / STEP).round() * STEP) as u32;
        }
        self.weight() != before
    }
}

/// How busy a node is, from 0.0 (idle) to 1.0 (saturated): by whatever it has least of.
fn busy(metrics: &NodeMetrics) -> f64 {
    let pressure = metrics.pressure.unwrap_or_default();
    [
        metrics.cpu_used,
        metrics.load[0] / f64::from(metrics.cpus.max(1)),
        pressure.cpu / 100.0,
        pressure.memory / 100.0,
        pressure.io / 100.0,
    ]
    .into_iter()
    .filter(|share| share.is_finite())
    .fold(0.0, f64::max)
    .min(1.0)
}
