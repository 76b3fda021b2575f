use tucano_api::{
    agent::NodeReport,
    state::{AlertKind, NodeCondition},
    units::Span,
};
use tucano_planner::{Action, Event};

use tucano_simulator::{Sim, config, node};

/// Worker 1, whose agent another one has followed; and a report of the one before.
fn superseded() -> (Sim, NodeReport) {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    let now = sim.now;
    let before = sim.agent(1).report(now);
    sim.agent(1).restart();
    sim.run(Span::secs(5));
    (sim, before)
}

fn observe(sim: &mut Sim, report: &mut NodeReport) -> Vec<Action> {
    report.sequence += 1;
    sim.event(Event::NodeReported {
        node: node(1),
        report: Box::new(report.clone()),
    })
}

fn contests(actions: &[Action]) -> usize {
    let is_contest = |action: &&Action| matches!(action, Action::Alert(alert) if alert.kind == AlertKind::NodeContested);
    actions.iter().filter(is_contest).count()
}

#[test]
fn only_the_agent_that_was_started_last_counts() {
    let (mut sim, mut superseded) = superseded();
    let now = sim.now;
    let current = sim.agent(1).report(now).agent_id;
    superseded.processes.clear();
    observe(&mut sim, &mut superseded);
    assert!(sim.cluster().is_superseded(&node(1), &superseded.agent_id));
    assert!(!sim.cluster().is_superseded(&node(1), &current));
    assert_eq!(sim.routed("hello").len(), 2, "its report is dropped");
}

#[test]
fn a_single_late_report_of_an_ended_agent_sends_no_alert() {
    let (mut sim, mut late) = superseded();
    assert_eq!(observe(&mut sim, &mut late), []);
    late.sequence -= 1;
    assert_eq!(observe(&mut sim, &mut late), [], "a duplicate");
}

#[test]
fn two_running_agents_are_alerted_once_until_one_has_been_quiet() {
    let (mut sim, mut superseded) = superseded();
    let mut sent = 0;
    for _ in 0..20 {
        sent += contests(&observe(&mut sim, &mut superseded));
        sim.run(Span::secs(1));
    }
    assert_eq!(sent, 1);
    sim.run(Span::secs(3600));
    assert_eq!(contests(&observe(&mut sim, &mut superseded)), 1);
}

#[test]
fn a_superseded_agent_does_not_keep_a_lost_worker_alive_and_is_accepted_afterwards() {
    let (mut sim, mut superseded) = superseded();
    sim.network.cut_off.insert(node(1));
    for _ in 0..100 {
        sim.run(Span::millis(100));
        if sim.condition(1) != NodeCondition::Alive {
            break;
        }
        observe(&mut sim, &mut superseded);
    }
    assert_ne!(sim.condition(1), NodeCondition::Alive);
    observe(&mut sim, &mut superseded);
    assert_eq!(sim.condition(1), NodeCondition::Alive);
    assert!(!sim.cluster().is_superseded(&node(1), &superseded.agent_id));
}
