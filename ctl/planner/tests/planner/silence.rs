//! Many workers stop reporting at once, and what comes back is still wanted.

use std::collections::BTreeSet;

use tucano_api::{
    ids::ProcessId,
    state::{AlertKind, NodeCondition},
    units::Span,
};
use tucano_planner::Worker;
use tucano_simulator::{
    Options, Sim, alerts, config,
    fault::{Fault, unstable_cluster},
    node, of_kind, workers,
};

fn containers(sim: &Sim) -> BTreeSet<ProcessId> {
    let agents = sim.agents.values();
    agents
        .flat_map(|agent| agent.containers.keys().cloned())
        .collect()
}

fn cut_off(sim: &mut Sim, numbers: &[usize]) {
    sim.network
        .cut_off
        .extend(numbers.iter().copied().map(node));
}

#[test]
fn a_silence_of_all_workers_costs_no_process_and_no_route() {
    let mut sim = Sim::new(4);
    sim.serve(config("hello", 16));
    let before = (containers(&sim), sim.published.clone());
    cut_off(&mut sim, &[1, 2, 3, 4]);
    for _ in 0..50 {
        sim.run(Span::millis(100));
        assert_eq!(sim.published, before.1);
    }
    sim.network.cut_off.clear();
    sim.run(Span::secs(20));
    assert_eq!((containers(&sim), sim.published.clone()), before);
    assert_eq!(
        alerts(&sim),
        [
            (AlertKind::MassSilence, "cluster"),
            (AlertKind::MassSilenceEnded, "cluster")
        ]
    );
}

#[test]
fn after_total_silence_the_further_lease_counts_from_the_first_report() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 6));
    let before = containers(&sim);
    cut_off(&mut sim, &[1, 2, 3]);
    sim.run(Span::secs(60));
    sim.network.cut_off.remove(&node(1));
    sim.run(Span::millis(1500));
    sim.network.cut_off.clear();
    sim.run(Span::secs(20));
    assert_eq!(containers(&sim), before);
    assert_eq!(sim.routed("hello").len(), 6);
    assert_eq!(of_kind(&sim.alerts, AlertKind::NodeMissing), 0);
}

#[test]
fn a_mass_silence_ends_with_the_further_lease_and_is_alerted() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 6));
    cut_off(&mut sim, &[2, 3]);
    sim.run(Span::millis(3500));
    assert_eq!(sim.routed("hello").len(), 6, "the further lease runs");
    assert_eq!(sim.condition(2), NodeCondition::Missing);
    sim.run(Span::secs(3));
    assert_eq!(sim.spread("hello"), [6, 0, 0]);
    assert_eq!(of_kind(&sim.alerts, AlertKind::MassSilence), 1);
    assert_eq!(of_kind(&sim.alerts, AlertKind::NodeMissing), 2);
    let ended = sim
        .alerts
        .iter()
        .find(|it| it.kind == AlertKind::MassSilenceEnded);
    let message = &ended.unwrap().message;
    assert!(
        message.contains("0 workers report again, 2 workers have not returned"),
        "{message}"
    );
}

#[test]
fn the_loss_of_one_worker_is_no_mass_silence() {
    for count in [2, 3] {
        let mut sim = Sim::new(count);
        sim.serve(config("hello", 6));
        cut_off(&mut sim, &[2]);
        sim.run(Span::millis(3200));
        assert_eq!(
            alerts(&sim),
            [(AlertKind::NodeMissing, "w2"), (AlertKind::NodeDead, "w2")]
        );
        sim.until_settled("hello");
    }
}

#[test]
fn a_third_of_the_workers_is_no_mass_silence() {
    let mut sim = Sim::new(6);
    sim.serve(config("hello", 6));
    cut_off(&mut sim, &[1, 2]);
    sim.run(Span::millis(3200));
    assert_eq!(of_kind(&sim.alerts, AlertKind::MassSilence), 0);
    assert_eq!(of_kind(&sim.alerts, AlertKind::NodeDead), 2);
}

#[test]
fn workers_that_are_already_dead_do_not_count() {
    let mut sim = Sim::new(6);
    sim.serve(config("hello", 6));
    for number in [4, 5, 6] {
        cut_off(&mut sim, &[number]);
        sim.until_condition(number, NodeCondition::Dead);
    }
    cut_off(&mut sim, &[1, 2]);
    sim.run(Span::millis(2500));
    assert_eq!(of_kind(&sim.alerts, AlertKind::MassSilence), 1);
}

#[test]
fn restart_commands_are_run_during_total_silence() {
    let workers = workers(2).into_iter().map(|worker| Worker {
        can_restart: true,
        ..worker
    });
    let mut sim = Sim::with(Options {
        workers: workers.collect(),
        ..Options::default()
    });
    sim.serve(config("hello", 4));
    sim.agent(1).cut_power();
    sim.agent(2).cut_power();
    sim.until("both are restarted", |sim| sim.restarts.len() == 2);
    sim.until_settled("hello");
    assert_eq!(
        sim.ids("hello").iter().map(ProcessId::number).max(),
        Some(4),
        "the same processes"
    );
}

#[test]
fn restarts_that_fail_during_total_silence_do_not_lose_the_processes() {
    let workers = workers(2).into_iter().map(|worker| Worker {
        can_restart: true,
        ..worker
    });
    let mut sim = Sim::with(Options {
        workers: workers.collect(),
        ..Options::default()
    });
    sim.serve(config("hello", 4));
    sim.unrestartable.extend([node(1), node(2)]);
    let before = containers(&sim);
    cut_off(&mut sim, &[1, 2]);
    sim.run(Span::secs(60));
    assert_eq!(sim.restarts.len(), 6, "all attempts");
    sim.network.cut_off.clear();
    sim.run(Span::secs(10));
    assert_eq!(containers(&sim), before);
    assert_eq!(sim.routed("hello").len(), 4);
}

#[test]
fn the_processes_of_a_lone_worker_that_was_lost_are_taken_back() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 3));
    let before = containers(&sim);
    cut_off(&mut sim, &[1]);
    sim.until_condition(1, NodeCondition::Dead);
    assert_eq!(sim.routed("hello"), []);
    sim.network.cut_off.clear();
    sim.until_settled("hello");
    assert_eq!(containers(&sim), before);
}

#[test]
fn processes_that_were_replaced_or_removed_meanwhile_are_not_taken_back() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 4));
    sim.serve(config("other", 2));
    cut_off(&mut sim, &[2]);
    sim.until_condition(2, NodeCondition::Dead);
    sim.until_settled("hello");
    sim.remove("other");
    sim.serve(config("other", 1));
    sim.network.cut_off.clear();
    sim.until_condition(2, NodeCondition::Alive);
    sim.until("they end", |sim| sim.agents[&node(2)].containers.is_empty());
    assert_eq!(sim.spread("hello"), [4, 0]);
}

#[test]
fn a_restart_of_the_controller_during_total_silence_keeps_the_processes() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 6));
    let before = containers(&sim);
    cut_off(&mut sim, &[1, 2, 3]);
    sim.run(Span::secs(5));
    sim.restart_controller();
    sim.run(Span::secs(30));
    sim.network.cut_off.clear();
    sim.run(Span::secs(10));
    assert_eq!(containers(&sim), before);
    assert_eq!(sim.routed("hello").len(), 6);
}

/// The validator checks that nothing happens before the deadline that the planner tells.
#[test]
fn a_restart_attempt_during_a_silence_is_a_deadline() {
    let mut sim = unstable_cluster(0);
    let deploy = Fault::Deploy {
        service: 0,
        concurrency: 1,
        mib: 256,
        image: 0,
    };
    for fault in [
        Fault::KillController { carried_out: 0 },
        Fault::CutPower(1),
        Fault::CutPower(4),
        deploy,
        Fault::CutPower(2),
        Fault::StartController,
        Fault::CutOff(3),
        Fault::Run(901),
        Fault::BreakRestart(2),
        Fault::Run(3601),
    ] {
        sim.inject(fault);
    }
}
