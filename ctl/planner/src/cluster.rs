//! The planner's entry points: restoring a cluster and taking a step.

use tucano_api::units::Timestamp;

use crate::{
    actions, adoption, backups, health, jobs, leases, lifecycle,
    model::{Action, Event, Settings, Snapshot, Worker},
    names, reachability, rebalance, reconcile, reports, restarts, restore, routes, secrets,
    services,
    state::State,
    topology, volumes,
};

/// All that the controller knows of its cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) state: State,
}

impl Cluster {
    /// The cluster from its records. Nothing is published, and no worker counts as missing, until every worker that
    /// was alive has reported or its lease, counted from `now`, has expired.
    pub fn restore(
        snapshot: Snapshot,
        workers: Vec<Worker>,
        settings: Settings,
        now: Timestamp,
    ) -> Self {
        let mut state = State::new(settings, now);
        restore::load(&mut state, snapshot, workers);
        Self { state }
    }

    /// Applies one event and returns the actions to carry out. Total: an event that does not fit is a no-op. Time
    /// never goes back: an event with an earlier `now` than the one before it counts as happening at the same time.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let state = &mut self.state;
        leases::extend_after_pause(state, now);
        state.now = state.now.max(now);
        apply(state, event);
        expire(state);
        volumes::check_nodes(state);
        reconcile::run(state);
        routes::update(state);
        if names::start::release(state) {
            reconcile::run(state);
            routes::update(state);
        }
        names::update(state);
        backups::schedule(state);
        actions::take(state)
    }

    /// The next time at which a `Tick` could change something.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        [
            leases::next_deadline(&self.state),
            reachability::next_deadline(&self.state),
            lifecycle::next_drain_deadline(&self.state),
            health::next_recovery(&self.state),
            rebalance::next_start(&self.state),
            self.state.schedule.next(),
            jobs::next_deadline(&self.state),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The state as records, as [`Cluster::restore`] takes it.
    pub fn snapshot(&self) -> Snapshot {
        let state = &self.state;
        Snapshot {
            services: state.services.values().map(|s| s.record.clone()).collect(),
            processes: state.processes.values().map(|p| p.record.clone()).collect(),
            nodes: state.nodes.iter().map(|n| n.record.clone()).collect(),
            secrets: state.secrets.values().cloned().collect(),
            volumes: state.volumes.all().cloned().collect(),
            backups: state.backups.values().cloned().collect(),
            jobs: state.jobs.records().cloned().collect(),
            runs: state.jobs.runs().cloned().collect(),
            counters: state.counters.clone(),
            identity: state.identity.clone(),
        }
    }
}

fn apply(state: &mut State, event: Event) {
    match event {
        Event::Configured { workers, settings } => topology::configure(state, workers, settings),
        Event::ServiceConfigured {
            config,
            image,
            platforms,
        } => services::configure(state, *config, image, platforms),
        Event::ServicesConfigured { services } => services::configure_all(state, services),
        Event::ServiceRestarted { name } => services::restart(state, &name),
        Event::ServiceRemoved { name, volumes } => services::remove(state, &name, volumes),
        Event::VolumeRemoved { id } => volumes::remove(state, &id),
        Event::BackupRequested { id } => backups::request(state, &id),
        Event::VolumeRestored(restore) => volumes::restores::begin(state, &restore),
        Event::VolumeMoved { id, to } => volumes::fills::begin(state, &id, &to),
        Event::OrphanRemoved { id, node } => volumes::orphans::remove(state, &id, &node),
        Event::SecretSet {
            name,
            version,
            sealed,
        } => secrets::set(state, name, version, sealed),
        Event::SecretRemoved { name } => secrets::remove(state, &name),
        Event::SecretsResealed { records } => secrets::reseal(state, records),
        Event::AgentReachable { node, reachable } => reachability::update(state, &node, reachable),
        Event::Drained { processes } => lifecycle::drained(state, &processes),
        Event::RunRequested { service, command } => {
            jobs::requests::request(state, &service, command);
        }
        Event::RunStopped { service, number } => jobs::requests::stop(state, &service, number),
        Event::Adopt => adoption::adopt(state),
        Event::NodeReported { node, report } => reports::accept(state, &node, *report),
        Event::RestartFinished { node, result } => restarts::finished(state, &node, result),
        Event::Tick => {}
    }
}

/// Applies what the passing of time alone changes.
fn expire(state: &mut State) {
    leases::expire(state);
    reachability::expire(state);
    lifecycle::expire_drains(state);
    health::expire_recoveries(state);
    rebalance::open(state);
    backups::expire(state);
    jobs::expire(state);
}
