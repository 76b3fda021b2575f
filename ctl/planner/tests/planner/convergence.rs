//! What must be so once the faults have ceased, whatever happened before.

use proptest::prelude::*;
use std::collections::BTreeSet;
use tucano_api::{
    ids::{NodeName, ProcessId, ServiceName},
    reasons::PendingReason,
    service::lacks,
    state::{NodeView, Pending, ServiceView, VolumeState, VolumeView},
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
        until_no_run_is_under_way(&mut sim);
        check_services(&sim);
        check_agents(&sim);
    }
}

/// A job with a schedule begins runs for ever, and a run that fits nowhere waits for ever.
fn until_no_run_is_under_way(sim: &mut Sim) {
    sim.until("no process of a run is left", |sim| {
        let snapshot = sim.cluster().snapshot();
        let mut agents = sim.agents.values();
        let is_quiet = agents.all(|agent| {
            let desired = sim.cluster().desired_set(&agent.name);
            let mut containers = agent.containers.values();
            desired.as_ref() == Some(&agent.desired)
                && containers.all(|it| it.desired.run.is_none())
        });
        is_quiet && snapshot.processes.iter().all(|it| it.run.is_none())
    });
}

/// Whether its `before` has failed, or waits for a place: somebody has to look.
fn is_held_back(view: &ServiceView) -> bool {
    let mut causes = view
        .active
        .pending
        .iter()
        .filter_map(|it| it.cause.as_ref());
    causes.any(|cause| matches!(cause, PendingReason::Before { .. }))
}

/// Exactly the concurrency, all healthy, current and routed; spread evenly where memory allows.
fn check_services(sim: &Sim) {
    for view in sim.cluster().services() {
        let service = view.configured.name.as_str();
        if is_held_back(&view) {
            continue;
        }
        if view.active.healthy == view.wanted() {
            let mut all = view.active.processes.iter();
            let left = all.find(|it| sim.restarted.contains(&it.report.id));
            assert!(left.is_none(), "was to be replaced: {left:?}");
        }
        if !view.configured.config.volume.is_empty() {
            check_slots(sim, &view);
            continue;
        }
        let concurrency = view.wanted() as usize;
        let pending: u32 = view
            .active
            .pending
            .iter()
            .map(|pending| pending.count)
            .sum();
        let fits = pending == 0;
        let all_can = all_know(sim, &view);
        let by_rule = |it: &Pending| is_rule(it.cause.as_ref().unwrap());
        let has_no_place = view.active.pending.iter().any(by_rule);
        assert!(
            fits || has_no_place || memory_is_scarce(sim) || !all_can,
            "{view:#?}"
        );
        if !fits {
            continue;
        }
        assert_eq!(view.active.healthy as usize, concurrency, "{view:#?}");
        assert_eq!(view.active.processes.len(), concurrency, "{view:#?}");
        assert_eq!(sim.routed(service).len(), concurrency);
        check_rules(sim, &view);
        if any_rules(sim) {
            continue;
        }
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

/// Whether processes wait because of a rule of placement, for CPUs, or for another service.
fn is_rule(reason: &PendingReason) -> bool {
    matches!(
        reason,
        PendingReason::NoLabels { .. }
            | PendingReason::NotWith { .. }
            | PendingReason::NotApart { .. }
            | PendingReason::NoCpus { .. }
            | PendingReason::NoDevices { .. }
            | PendingReason::NoMemoryOrCpus { .. }
            | PendingReason::StartsAfter { .. }
    )
}

fn any_rules(sim: &Sim) -> bool {
    let services = sim.cluster().services();
    let mut configs = services.iter().map(|it| &it.configured.config);
    configs
        .any(|it| !it.placement.is_default() || it.cpus_reserved.is_some() || it.has_own_devices())
}

/// Every process is where it may be, and there is one on each worker where that is wanted.
fn check_rules(sim: &Sim, view: &ServiceView) {
    let placement = &view.configured.config.placement;
    let services = sim.cluster().services();
    let has = |service: &ServiceName, node: &NodeName| {
        let service = services.iter().find(|it| it.configured.name == *service);
        let mut processes = service.into_iter().flat_map(|it| &it.active.processes);
        processes.any(|it| it.node == *node)
    };
    // Of two that are both to be apart from the other, the one with the later name moves.
    let own = &view.configured.name;
    let is_mutual = |other: &ServiceName| {
        let other = sim.cluster().service(other);
        other.is_some_and(|it| it.configured.config.placement.apart_from.contains(own))
    };
    let moves_for = |other: &&ServiceName| !is_mutual(other) || own > *other;
    let is_place = |node: &NodeView| {
        !lacks(&node.labels, &placement.labels)
            && placement.with.iter().all(|other| has(other, &node.name))
            && !placement
                .apart_from
                .iter()
                .filter(moves_for)
                .any(|other| has(other, &node.name))
    };
    for process in &view.active.processes {
        let node = sim.cluster().node(&process.node).unwrap();
        let is_removed = placement
            .with
            .iter()
            .any(|other| sim.cluster().service(other).is_none());
        assert!(is_removed || is_place(&node), "{view:#?}");
    }
    if placement.everywhere {
        for node in sim.cluster().nodes().iter().filter(|it| is_place(it)) {
            let mut processes = view.active.processes.iter();
            let has_one = processes.any(|it| it.node == node.name);
            assert!(has_one || is_apart_elsewhere(sim, view), "{view:#?}");
        }
    }
}

/// Whether another service is to be apart from this one.
fn is_apart_elsewhere(sim: &Sim, view: &ServiceView) -> bool {
    let services = sim.cluster().services();
    let mut others = services.iter().map(|it| &it.configured.config.placement);
    others.any(|it| it.apart_from.contains(&view.configured.name))
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
            PendingReason::NoVolumeRoom { .. }
            | PendingReason::NoDevices { .. }
            | PendingReason::UnknownKeys { .. } => true,
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
