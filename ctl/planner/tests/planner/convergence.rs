//! What must be so once the faults have ceased, whatever happened before.

use proptest::prelude::*;
use std::collections::BTreeSet;
use tucano_api::{ids::ProcessId, units::Span};

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
        let concurrency = view.configured.config.concurrency as usize;
        let pending: u32 = view
            .active
            .pending
            .iter()
            .map(|pending| pending.count)
            .sum();
        let fits = pending == 0;
        assert!(fits || memory_is_scarce(sim), "{view:#?}");
        if !fits {
            continue;
        }
        assert_eq!(view.active.healthy as usize, concurrency, "{view:#?}");
        assert_eq!(view.active.processes.len(), concurrency, "{view:#?}");
        assert_eq!(sim.routed(service).len(), concurrency);
        let spread = sim.spread(service);
        let difference = spread.iter().max().unwrap() - spread.iter().min().unwrap();
        assert!(
            difference <= 1 || memory_is_scarce(sim),
            "{service}: {spread:?}"
        );
    }
}

/// Agents run exactly what they are to run, and know the last set.
fn check_agents(sim: &Sim) {
    for (name, agent) in &sim.agents {
        let desired = sim.cluster().desired_set(name).unwrap();
        assert_eq!(agent.desired, desired);
        let wanted: BTreeSet<&ProcessId> = desired.processes.iter().map(|p| &p.id).collect();
        let actual: BTreeSet<&ProcessId> = agent.containers.keys().collect();
        assert_eq!(actual, wanted);
    }
}

/// Whether some worker could not take one more of the largest processes.
fn memory_is_scarce(sim: &Sim) -> bool {
    sim.cluster().nodes().iter().any(|node| {
        let set = sim.cluster().desired_set(&node.name).unwrap();
        let used: u64 = set.processes.iter().map(|p| p.config.memory.0).sum();
        let all = node.alive.as_ref().unwrap().metrics.memory_reservable.0;
        all - used < 1024 << 20
    })
}
