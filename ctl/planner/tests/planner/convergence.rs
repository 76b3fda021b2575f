//! What must be so once the faults have ceased, whatever happened before.

use proptest::prelude::*;
use std::collections::BTreeSet;
use tucano_api::{
    ids::ProcessId,
    reasons::PendingReason,
    state::{ServiceView, VolumeState, VolumeView},
    units::Span,
};

use tucano_simulator::{
    Sim,
    fault::{fault, unstable_cluster},
};

/// Long enough for restarts, back-offs, a rollout of everything and all moves.
const QUIET: Span = Span::secs(90);

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_cluster_converges_when_the_faults_end(seed: u64, events in prop::collection::vec(fault(), 1..40)) {
        let mut sim = unstable_cluster(seed);
        for event in events {
            sim.inject(event);
        }
        sim.heal();
        sim.run(QUIET);
        check_services(&sim);
        check_agents(&sim);
    }
}

/// Exactly the concurrency, all healthy, current and routed; spread evenly where memory allows.
fn check_services(sim: &Sim) {
    for view in sim.cluster().services() {
        let service = view.configured.name.as_str();
        if !view.configured.config.volume.is_empty() {
            check_slots(sim, &view);
            continue;
        }
        let concurrency = view.configured.config.concurrency as usize;
        let pending: u32 = view
            .active
            .pending
            .iter()
            .map(|pending| pending.count)
            .sum();
        let fits = pending == 0;
        let all_can = all_know(sim, &view);
        assert!(fits || memory_is_scarce(sim) || !all_can, "{view:#?}");
        if !fits {
            continue;
        }
        assert_eq!(view.active.healthy as usize, concurrency, "{view:#?}");
        assert_eq!(view.active.processes.len(), concurrency, "{view:#?}");
        assert_eq!(sim.routed(service).len(), concurrency);
        let spread = sim.spread(service);
        let difference = spread.iter().max().unwrap() - spread.iter().min().unwrap();
        assert!(
            difference <= 1 || memory_is_scarce(sim) || !all_can,
            "{service}: {spread:?}"
        );
    }
}

/// Whether every agent can run a service: those of earlier versions do not connect services.
fn all_know(sim: &Sim, view: &ServiceView) -> bool {
    let is_known = view.configured.config.agent_keys().next().is_none();
    is_known || !sim.agents.values().any(|agent| agent.is_old)
}

/// Each slot has its healthy process, unless something that a person has to mend is in its way.
fn check_slots(sim: &Sim, view: &ServiceView) {
    let volumes = sim.cluster().volumes().into_iter();
    let own = volumes.filter(|it| it.volume.id.service_name() == view.configured.name.as_str());
    let is_lost = |it: VolumeView| !matches!(it.state, VolumeState::InUse | VolumeState::Idle);
    if own.into_iter().any(is_lost) {
        return;
    }
    for pending in &view.active.pending {
        let allowed = match pending.cause.as_ref().unwrap() {
            PendingReason::NoVolumeRoom { .. } | PendingReason::UnknownKeys { .. } => true,
            PendingReason::NoMemory { .. } | PendingReason::Stopping => memory_is_scarce(sim),
            // Others are in the way.
            PendingReason::Rolling { .. } => view.active.pending.len() > 1,
            _ => false,
        };
        assert!(allowed, "{view:#?}");
    }
    let concurrency = view.configured.config.concurrency as usize;
    let pending: u32 = view.active.pending.iter().map(|it| it.count).sum();
    let current = view
        .active
        .processes
        .iter()
        .filter(|it| it.current && it.routed);
    assert_eq!(current.count() + pending as usize, concurrency, "{view:#?}");
}

/// Agents run exactly what they are to run, and know the last set.
fn check_agents(sim: &Sim) {
    for (name, agent) in &sim.agents {
        let desired = sim.cluster().desired_set(name).unwrap();
        assert_eq!(agent.desired, desired);
        let wanted: BTreeSet<&ProcessId> = desired.processes.iter().map(|p| &p.id).collect();
        let actual: BTreeSet<&ProcessId> = agent.containers.keys().collect();
        let has_volumes = |id: &&&ProcessId| {
            let mut processes = desired.processes.iter();
            processes.any(|it| it.id == ***id && it.slot.is_none())
        };
        // One whose volume is lost does not start.
        let expected: BTreeSet<&ProcessId> = wanted.iter().filter(has_volumes).copied().collect();
        assert!(actual.is_subset(&wanted) && actual.is_superset(&expected));
    }
}

/// Whether some worker could not take one more of the largest processes.
fn memory_is_scarce(sim: &Sim) -> bool {
    sim.cluster().nodes().iter().any(|node| {
        let set = sim.cluster().desired_set(&node.name).unwrap();
        let used: u64 = set.processes.iter().map(|p| p.config.memory.0).sum();
        let used = used + sim.cluster().claimed(&node.name);
        let all = node.alive.as_ref().unwrap().metrics.memory_reservable.0;
        all.saturating_sub(used) < 1024 << 20
    })
}
