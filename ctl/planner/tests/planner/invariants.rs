//! What must not happen in any step, whatever happens to the cluster. The validator looks at each one.

use proptest::prelude::*;

use tucano_api::units::Span;
use tucano_simulator::fault::{
    Fault::{
        CutPower, Deploy, DeployRules, DeployVolumes, Network, OldAgent, Pause, PowerOn, Relabel,
        RemoveStateful, Run, Topology,
    },
    fault, unstable_cluster,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_under_any_faults(seed: u64, events in prop::collection::vec(fault(), 1..60)) {
        let mut sim = unstable_cluster(seed);
        for event in events {
            sim.inject(event);
        }
    }
}

/// A move within a zone: both processes are there for a moment.
#[test]
fn a_move_within_a_zone_keeps_the_zones_as_they_are() {
    let mut sim = unstable_cluster(0);
    let rules = DeployRules {
        service: 1,
        concurrency: 1,
        mib: 256,
        tenths: 0,
        rules: 1,
        image: 0,
    };
    let deploy = Deploy {
        service: 0,
        concurrency: 3,
        mib: 256,
        image: 1,
    };
    for event in [
        Relabel(2, 0),
        rules,
        deploy,
        OldAgent(2, true),
        Pause(4000),
        Run(801),
    ] {
        sim.inject(event);
    }
    sim.heal();
    sim.run(Span::secs(90));
}

/// What a worker needs is told until it has left, and then that it needs nothing.
#[test]
fn a_worker_that_leaves_needs_nothing_any_more() {
    let mut sim = unstable_cluster(13_034_527_055_932_653_071);
    let deploy = |concurrency, image| Deploy {
        service: 1,
        concurrency,
        mib: 256,
        image,
    };
    let network = |lost, doubled, delay_ms| Network {
        lost,
        doubled,
        delay_ms,
    };
    let stateful = DeployVolumes {
        service: 1,
        concurrency: 3,
        mib: 256,
        volumes: 3,
        size: 64,
        image: 0,
    };
    for event in [
        stateful,
        network(20, 0, 2),
        Run(1301),
        Run(1301),
        CutPower(2),
        Pause(3000),
        Run(1601),
        PowerOn(2),
        network(23, 2, 129),
        deploy(1, 0),
        deploy(3, 1),
        Run(1401),
        RemoveStateful(1, false),
        Topology(0),
    ] {
        sim.inject(event);
    }
}
