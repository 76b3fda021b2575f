use tucano_api::{
    agent::NodeReport,
    state::{AlertKind, NodeCondition},
    units::Span,
};
use tucano_planner::{Action, Event};

use crate::kit::{Sim, config, node};

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

fn hear(sim: &mut Sim, report: &mut NodeReport) -> Vec<Action> {
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
fn the_agent_that_was_started_last_counts() {
    let (mut sim, mut rival) = superseded();
    let now = sim.now;
    let current = sim.agent(1).report(now).agent_id;
    rival.processes.clear();
    hear(&mut sim, &mut rival);
    assert!(sim.cluster().is_superseded(&node(1), &rival.agent_id));
    assert!(!sim.cluster().is_superseded(&node(1), &current));
    assert_eq!(sim.routed("hello").len(), 2, "what it says is not believed");
}

#[test]
fn the_last_words_of_an_ended_agent_are_no_news() {
    let (mut sim, mut late) = superseded();
    assert_eq!(hear(&mut sim, &mut late), []);
    late.sequence -= 1;
    assert_eq!(hear(&mut sim, &mut late), [], "it came twice");
}

#[test]
fn two_living_agents_are_told_of_once_until_the_rival_has_been_quiet() {
    let (mut sim, mut rival) = superseded();
    let mut told = 0;
    for _ in 0..20 {
        told += contests(&hear(&mut sim, &mut rival));
        sim.run(Span::secs(1));
    }
    assert_eq!(told, 1);
    sim.run(Span::secs(3600));
    assert_eq!(contests(&hear(&mut sim, &mut rival)), 1);
}

#[test]
fn a_rival_does_not_keep_a_lost_worker_alive_and_is_welcome_afterwards() {
    let (mut sim, mut rival) = superseded();
    sim.network.cut_off.insert(node(1));
    for _ in 0..100 {
        sim.run(Span::millis(100));
        if sim.condition(1) != NodeCondition::Alive {
            break;
        }
        hear(&mut sim, &mut rival);
    }
    assert_ne!(sim.condition(1), NodeCondition::Alive);
    hear(&mut sim, &mut rival);
    assert_eq!(sim.condition(1), NodeCondition::Alive);
    assert!(!sim.cluster().is_superseded(&node(1), &rival.agent_id));
}
