//! The state loop's metrics.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tucano_planner::Event;

/// Label of an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EventLabels {
    kind: &'static str,
}

/// The state loop's metrics; clones share their values.
#[derive(Debug, Clone)]
pub struct StateLoopMetrics {
    events: Family<EventLabels, Counter>,
    persist_seconds: Histogram,
    held_back: Gauge,
}

impl Default for StateLoopMetrics {
    fn default() -> Self {
        let buckets = [
            0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
        ];
        Self {
            events: Family::default(),
            persist_seconds: Histogram::new(buckets),
            held_back: Gauge::default(),
        }
    }
}

impl StateLoopMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "events",
            "Events processed by the planner",
            self.events.clone(),
        );
        registry.register_with_unit(
            "persist",
            "Time to store the records of one event",
            Unit::Seconds,
            self.persist_seconds.clone(),
        );
        registry.register(
            "actions_held_back",
            "1 while nothing can be stored and no action leaves the controller",
            self.held_back.clone(),
        );
    }

    pub(super) fn event(&self, event: &Event) {
        let kind = match event {
            Event::Configured { .. } => "configured",
            Event::ServiceConfigured { .. } | Event::ServicesConfigured { .. } => {
                "service_configured"
            }
            Event::ServiceRestarted { .. } => "service_restarted",
            Event::ServiceRemoved { .. } => "service_removed",
            Event::SecretSet { .. } => "secret_set",
            Event::SecretRemoved { .. } => "secret_removed",
            Event::SecretsResealed { .. } => "secrets_resealed",
            Event::VolumeRemoved { .. } => "volume_removed",
            Event::VolumeMoved { .. } => "volume_moved",
            Event::BackupRequested { .. } => "backup_requested",
            Event::VolumeRestored(_) => "volume_restored",
            Event::OrphanRemoved { .. } => "orphan_removed",
            Event::NodeReported { .. } => "node_reported",
            Event::AgentReachable { .. } => "agent_reachable",
            Event::Drained { .. } => "drained",
            Event::RunRequested { .. } => "run_requested",
            Event::RunStopped { .. } => "run_stopped",
            Event::Adopt => "adopt",
            Event::RestartFinished { .. } => "restart_finished",
            Event::Tick => "tick",
        };
        self.events.get_or_create(&EventLabels { kind }).inc();
    }

    pub(super) fn persisted(&self, took: std::time::Duration) {
        self.persist_seconds.observe(took.as_secs_f64());
    }

    pub(super) fn holding_back(&self, held: bool) {
        self.held_back.set(i64::from(held));
    }
}
