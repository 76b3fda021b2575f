//! What a controller must not end: processes that it does not know.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tucano_api::{
    agent::{ProcessState, SetIdentity},
    ids::{Epoch, Generation, NodeName, ProcessId},
    state::{AlertKind, HoldCause},
    units::Span,
};
use tucano_planner::Event;
use tucano_simulator::{
    Sim, alerts, config, image, name, new_disk, node, of_kind, process, with_memory,
};

fn containers(sim: &Sim) -> BTreeSet<(NodeName, ProcessId)> {
    let agents = sim.agents.values();
    agents
        .flat_map(|agent| agent.containers.iter().map(move |it| (agent, it)))
        .filter(|(_, (_, container))| container.state != ProcessState::Stopping)
        .map(|(agent, (id, _))| (agent.name.clone(), id.clone()))
        .collect()
}

fn holds(sim: &Sim) -> Vec<Option<HoldCause>> {
    sim.cluster()
        .nodes()
        .into_iter()
        .map(|node| node.hold)
        .collect()
}

/// The cluster that all agents run, whose controller has lost its database.
fn lost() -> Sim {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 4));
    sim.serve(with_memory("other", 1, 64));
    sim.serve(with_memory("other", 1, 128));
    sim.replace_disk(new_disk(2));
    sim
}

#[test]
fn a_controller_that_lost_its_database_ends_nothing_and_alerts_each_worker_once() {
    let mut sim = lost();
    let before = (containers(&sim), sim.published.clone());
    sim.run(Span::secs(60));
    sim.restart_controller();
    sim.run(Span::secs(60));
    assert_eq!((containers(&sim), sim.published.clone()), before);
    assert_eq!(holds(&sim), [Some(HoldCause::OtherCluster); 2]);
    let mut sent = alerts(&sim);
    sent.sort_by_key(|(_, subject)| *subject);
    assert_eq!(
        sent,
        [(AlertKind::NodeHeld, "w1"), (AlertKind::NodeHeld, "w2")]
    );
    let reason = sim.cluster().node(&node(1)).unwrap().reason.unwrap();
    assert!(reason.starts_with("on hold: "), "{reason}");
}

#[test]
fn nothing_is_placed_on_a_worker_on_hold() {
    let mut sim = lost();
    sim.run(Span::secs(5));
    sim.deploy(config("new", 1));
    sim.run(Span::secs(5));
    let pending = sim.service("new").active.pending;
    assert!(
        pending[0].reason.contains("on hold"),
        "{}",
        pending[0].reason
    );
}

#[test]
fn adoption_shows_and_rebuilds_services_revisions_and_processes() {
    let mut sim = lost();
    let before = containers(&sim);
    sim.run(Span::secs(5));
    let found = sim.cluster().adoption();
    assert_eq!(found.nodes.len(), 2);
    assert!(
        found.nodes.iter().all(|node| node.obstacle.is_none()),
        "{found:#?}"
    );
    let services: Vec<_> = found
        .services
        .iter()
        .map(|it| {
            (
                it.name.as_str(),
                it.processes,
                it.concurrency,
                it.configured,
            )
        })
        .collect();
    assert_eq!(services, [("hello", 4, 4, false), ("other", 1, 1, false)]);
    assert_eq!(found.services[1].revisions, [tucano_api::ids::Revision(2)]);

    sim.event(Event::Adopt);
    sim.until_settled("hello");
    sim.until_settled("other");
    sim.run(Span::secs(30));
    assert_eq!(containers(&sim), before);
    assert_eq!(sim.routed("hello").len(), 4);
    assert_eq!(
        sim.service("other").configured.config,
        with_memory("other", 1, 128)
    );
    assert_eq!(holds(&sim), [None; 2]);
    assert_eq!(of_kind(&sim.alerts, AlertKind::NodeReleased), 2);
    let own = sim.disk.identity.cluster.clone();
    assert!(
        sim.agents
            .values()
            .all(|agent| agent.desired.identity.cluster == own)
    );

    sim.restart_controller();
    sim.serve(config("hello", 5));
    assert_eq!(
        sim.ids("hello").last().unwrap().number(),
        6,
        "no number is used twice"
    );
}

#[test]
fn an_older_copy_of_the_database_ends_nothing_that_it_does_not_know() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    let copy = sim.disk.clone();
    sim.serve(config("later", 2));
    sim.serve(config("hello", 4));
    let before = containers(&sim);
    sim.replace_disk(copy);
    sim.run(Span::secs(60));
    assert_eq!(containers(&sim), before);
    assert_eq!(holds(&sim), [Some(HoldCause::Ahead); 2]);

    sim.event(Event::Adopt);
    sim.run(Span::secs(30));
    assert_eq!(sim.routed("later").len(), 2);
    assert!(
        containers(&sim)
            .iter()
            .filter(|(_, id)| id.as_str().starts_with("later"))
            .count()
            == 2
    );
}

#[test]
fn an_older_copy_that_loses_its_workers_at_first_does_not_outrun_them() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    let copy = sim.disk.clone();
    sim.deploy_image(config("hello", 2), 2);
    sim.until_settled("hello");
    let before = containers(&sim);
    sim.network.cut_off.extend([node(1), node(2)]);
    sim.replace_disk(copy);
    sim.run(Span::secs(10));
    for _ in 0..5 {
        sim.remove("hello");
        sim.deploy(config("hello", 2));
    }
    sim.restart_controller();
    sim.run(Span::secs(10));
    sim.network.cut_off.clear();
    sim.run(Span::secs(10));
    assert_eq!(containers(&sim), before);
}

#[test]
fn a_worker_that_was_added_after_the_backup_is_not_emptied() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    let copy = sim.disk.clone();
    sim.reconfigure(tucano_simulator::workers(2));
    sim.serve(config("hello", 2));
    sim.until("it runs there", |sim| {
        !sim.agents[&node(2)].containers.is_empty()
    });
    let before = containers(&sim);
    let mut restored = copy;
    restored.identity.epoch = Epoch(9);
    sim.replace_disk(restored);
    sim.run(Span::secs(30));
    assert!(containers(&sim).is_superset(&before));
}

#[test]
fn a_restored_database_without_later_changes_goes_on_in_a_new_epoch() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    let before = containers(&sim);
    let mut restored = sim.disk.clone();
    restored.identity.epoch = Epoch(9);
    sim.replace_disk(restored);
    sim.run(Span::secs(5));
    assert_eq!(holds(&sim), [None; 2]);
    sim.serve(config("hello", 4));
    assert!(
        sim.agents
            .values()
            .all(|agent| agent.desired.identity.epoch == Epoch(9))
    );
    assert!(containers(&sim).is_superset(&before));
}

#[test]
fn a_saturated_generation_heals_by_an_epoch() {
    for identity in [true, false] {
        let mut sim = Sim::new(1);
        sim.serve(config("hello", 1));
        let agent = sim.agent(1);
        agent.desired.generation = Generation(u64::MAX);
        agent.desired.processes.clear();
        if !identity {
            agent.desired.identity = SetIdentity::default();
        }
        sim.until_settled("hello");
        sim.run(Span::secs(5));
        sim.until_settled("hello");
        let held = sim.agents[&node(1)].desired.clone();
        assert_eq!(Some(held), sim.cluster().desired_set(&node(1)));
        sim.serve(config("hello", 3));
    }
}

#[test]
fn the_same_generation_with_another_digest_is_not_current() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 2));
    let now = sim.now;
    let mut report = sim.agent(1).report(now);
    report.identity.digest = Some(image(9));
    sim.event(Event::NodeReported {
        node: node(1),
        report: Box::new(report),
    });
    assert_eq!(holds(&sim), [Some(HoldCause::Diverged)]);
}

#[test]
fn an_absurd_sequence_number_is_dropped_and_the_next_report_counts() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    for agent in ["w1-0", "another"] {
        let now = sim.now;
        let mut report = Box::new(sim.agent(1).report(now));
        report.sequence = u64::MAX;
        report.agent_id = agent.into();
        report.processes.clear();
        let node = node(1);
        assert_eq!(sim.event(Event::NodeReported { node, report }), []);
    }
    sim.run(Span::secs(20));
    assert_eq!(alerts(&sim), []);
    assert_eq!(sim.routed("hello").len(), 2);
}

#[test]
fn a_service_that_was_configured_differently_meanwhile_is_an_obstacle() {
    let mut sim = lost();
    sim.run(Span::secs(3));
    sim.deploy_image(config("other", 1), 2);
    sim.deploy_image(config("other", 1), 3);
    let before = containers(&sim);
    sim.event(Event::Adopt);
    sim.run(Span::secs(20));
    assert!(containers(&sim).is_superset(&before));
    let obstacles: Vec<_> = sim.cluster().adoption().nodes;
    assert_eq!(obstacles.len(), 1, "the other worker is adopted");
    let obstacle = obstacles[0].obstacle.clone().unwrap();
    assert!(
        obstacle.contains("service other is configured differently"),
        "{obstacle}"
    );
    sim.remove("other");
    sim.event(Event::Adopt);
    sim.until_settled("other");
    assert!(containers(&sim).is_superset(&before));
}

#[test]
fn an_agent_without_identities_is_held_by_a_controller_without_a_database() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    sim.disk = new_disk(2);
    sim.validator = Default::default();
    sim.cluster = None;
    sim.agent(1).desired.identity = SetIdentity::default();
    sim.start_controller();
    sim.run(Span::secs(10));
    assert_eq!(holds(&sim), [Some(HoldCause::Ahead)]);
    assert!(
        sim.agents[&node(1)]
            .containers
            .contains_key(&process("hello-1"))
    );
    assert_eq!(sim.cluster().service(&name("hello")), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Whatever copy of its database a controller starts with: no process ends that the copy does not know.
    #[test]
    fn no_copy_of_the_database_ends_unknown_processes(
        steps in prop::collection::vec((0..3_usize, 1..5_u32, 1..4_u8), 2..8),
        copied in 0..8_usize,
        fresh in any::<bool>(),
        restored in any::<bool>(),
        silent in any::<bool>(),
    ) {
        let mut sim = Sim::new(3);
        let mut copy = sim.disk.clone();
        for (index, (service, concurrency, image)) in steps.into_iter().enumerate() {
            let service = ["a", "b", "c"][service];
            sim.deploy_image(config(service, concurrency), image);
            sim.until_settled(service);
            if index == copied {
                copy = sim.disk.clone();
            }
        }
        if fresh {
            copy = new_disk(7);
        }
        if restored {
            copy.identity.epoch = Epoch(copy.identity.epoch.0 + 1);
        }
        sim.run(Span::secs(2));
        let known: BTreeSet<ProcessId> = copy.processes.iter().map(|p| p.id.clone()).collect();
        let before = containers(&sim);
        if silent {
            sim.network.cut_off.insert(node(2));
        }
        sim.replace_disk(copy);
        sim.run(Span::secs(10));
        sim.network.cut_off.clear();
        sim.run(Span::secs(20));
        let after = containers(&sim);
        for (node, id) in before.iter().filter(|(_, id)| !known.contains(id)) {
            prop_assert!(after.contains(&(node.clone(), id.clone())), "{} on {} has ended", id, node);
        }
    }
}
