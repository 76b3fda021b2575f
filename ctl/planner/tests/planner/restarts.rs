use tucano_api::{
    state::{AlertKind, NodeCondition},
    units::Span,
};
use tucano_planner::{Event, Settings, Worker};

use tucano_simulator::{Options, Sim, alerts, config, node, settings, worker, workers};

fn restartable(settings: Settings) -> Sim {
    let workers = workers(2).into_iter().map(|worker| Worker {
        can_restart: true,
        ..worker
    });
    Sim::with(Options {
        workers: workers.collect(),
        settings,
        ..Options::default()
    })
}

fn attempts(sim: &Sim) -> Vec<u32> {
    sim.restarts.iter().map(|(_, attempt)| *attempt).collect()
}

#[test]
fn a_successful_restart_makes_the_worker_alive() {
    let mut sim = restartable(settings());
    sim.serve(config("hello", 4));
    sim.agent(2).cut_power();
    sim.until_condition(2, NodeCondition::Missing);
    assert_eq!(sim.restarts, [(node(2), 1)]);
    sim.until_condition(2, NodeCondition::Alive);
    assert_eq!(
        alerts(&sim),
        [(AlertKind::NodeMissing, "w2"), (AlertKind::NodeBack, "w2")]
    );
    assert_eq!(sim.cluster().state().dead_nodes, []);
    sim.until_settled("hello");
}

#[test]
fn a_failing_restart_is_tried_again_until_the_worker_is_dead() {
    let mut sim = restartable(settings());
    sim.unrestartable.insert(node(2));
    sim.agent(2).cut_power();
    sim.until_condition(2, NodeCondition::Missing);
    let missing_at = sim.now;
    sim.until_condition(2, NodeCondition::Dead);
    assert_eq!(attempts(&sim), [1, 2, 3]);
    let took = sim.now.since(missing_at);
    assert!(took >= Span::secs(3), "it waits 1 s, then 2 s: {took}");
    let dead = &sim.cluster().state().dead_nodes[0];
    assert_eq!(dead.name, node(2));
    assert_eq!(
        dead.reason,
        "3 restarts have failed; the last one: no route to host"
    );
    assert_eq!(
        alerts(&sim),
        [(AlertKind::NodeMissing, "w2"), (AlertKind::NodeDead, "w2")]
    );
    sim.run(Span::secs(60));
    assert_eq!(attempts(&sim), [1, 2, 3], "bounded");
}

#[test]
fn a_restart_command_after_which_no_report_comes_has_failed() {
    let mut sim = restartable(settings());
    sim.network.cut_off.insert(node(2));
    sim.until_condition(2, NodeCondition::Dead);
    assert_eq!(attempts(&sim), [1, 2, 3]);
    let reason = &sim.cluster().state().dead_nodes[0].reason;
    assert!(reason.ends_with("no report came within 5s"), "{reason}");
}

#[test]
fn without_a_restart_command_a_lost_worker_is_dead_at_once() {
    let mut sim = Sim::new(1);
    sim.agent(1).cut_power();
    sim.until_condition(1, NodeCondition::Dead);
    let dead = &sim.cluster().state().dead_nodes[0];
    assert_eq!(dead.reason, "no restart command is configured for it");
}

#[test]
fn zero_attempts_allow_no_restart() {
    let mut sim = restartable(Settings {
        restart_attempts: 0,
        ..settings()
    });
    sim.agent(1).cut_power();
    sim.until_condition(1, NodeCondition::Dead);
    assert_eq!(sim.restarts, []);
}

#[test]
fn a_dead_worker_that_reports_is_alive_and_has_all_attempts_again() {
    let mut sim = restartable(settings());
    sim.unrestartable.insert(node(2));
    sim.agent(2).cut_power();
    sim.until_condition(2, NodeCondition::Dead);
    sim.agent(2).power_on();
    sim.until_condition(2, NodeCondition::Alive);
    assert_eq!(alerts(&sim).last(), Some(&(AlertKind::NodeBack, "w2")));
    sim.agent(2).cut_power();
    sim.until_condition(2, NodeCondition::Dead);
    assert_eq!(attempts(&sim), [1, 2, 3, 1, 2, 3]);
}

#[test]
fn an_unexpected_restart_result_is_ignored() {
    let mut sim = restartable(settings());
    let finished = |number| Event::RestartFinished {
        node: node(number),
        result: Err("no".into()),
    };
    assert_eq!(sim.event(finished(1)), []);
    assert_eq!(sim.event(finished(99)), []);
    assert_eq!(sim.condition(1), NodeCondition::Alive);
}

#[test]
fn restart_attempts_continue_after_a_restart_of_the_controller() {
    let mut sim = restartable(settings());
    sim.unrestartable.insert(node(2));
    sim.agent(2).cut_power();
    sim.until_condition(2, NodeCondition::Missing);
    sim.restart_controller();
    assert_eq!(sim.condition(2), NodeCondition::Missing);
    sim.until_condition(2, NodeCondition::Dead);
    assert_eq!(attempts(&sim), [1, 2, 3]);
    assert_eq!(
        alerts(&sim),
        [(AlertKind::NodeMissing, "w2"), (AlertKind::NodeDead, "w2")]
    );
    sim.restart_controller();
    sim.run(Span::secs(10));
    assert_eq!(sim.condition(2), NodeCondition::Dead, "and stays so");
    assert_eq!(alerts(&sim).len(), 2);
}

#[test]
fn a_worker_that_was_down_when_the_controller_started_is_restarted() {
    let mut sim = Sim::unreported(Options {
        workers: vec![Worker {
            can_restart: true,
            ..worker(1)
        }],
        ..Options::default()
    });
    sim.agent(1).cut_power();
    sim.until("it is restarted", |sim| sim.restarts == [(node(1), 1)]);
    sim.until_condition(1, NodeCondition::Alive);
}

#[test]
fn a_long_error_of_a_restart_command_is_cut() {
    let mut sim = restartable(Settings {
        restart_attempts: 1,
        ..settings()
    });
    sim.agent(1).cut_power();
    sim.until_condition(1, NodeCondition::Missing);
    sim.event(Event::RestartFinished {
        node: node(1),
        result: Err("é".repeat(100_000)),
    });
    assert!(sim.cluster().state().dead_nodes[0].reason.len() < 2000);
}
