use tucano_api::{
    agent::{NodeReport, ProcessState},
    ids::Generation,
    units::Span,
};
use tucano_planner::{Action, Event};

use tucano_simulator::{Sim, config, name, node, process};

/// A report as the agent would send it now.
fn report(sim: &mut Sim, number: usize) -> NodeReport {
    let now = sim.now;
    sim.agent(number).report(now)
}

fn deliver(sim: &mut Sim, number: usize, report: NodeReport) -> Vec<Action> {
    sim.event(Event::NodeReported {
        node: node(number),
        report: Box::new(report),
    })
}

fn assigned(actions: &[Action]) -> Vec<Generation> {
    let set = |action: &Action| match action {
        Action::Assign(set) => Some(set.generation),
        _ => None,
    };
    actions.iter().filter_map(set).collect()
}

#[test]
fn an_agent_that_is_behind_is_sent_its_set_with_each_report() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    let mut behind = report(&mut sim, 1);
    let current = behind.clone();
    behind.generation = Generation(1);
    behind.identity.digest = None;
    for _ in 0..2 {
        behind.sequence += 1;
        assert_eq!(
            assigned(&deliver(&mut sim, 1, behind.clone())),
            [Generation(2)]
        );
    }
    behind.sequence += 1;
    behind.generation = Generation(2);
    behind.identity = current.identity;
    assert_eq!(deliver(&mut sim, 1, behind), []);
}

#[test]
fn a_late_or_doubled_report_changes_nothing() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    let first = report(&mut sim, 1);
    let second = report(&mut sim, 1);
    deliver(&mut sim, 1, second.clone());
    let mut unhealthy = first;
    unhealthy.processes[0].state = ProcessState::Unhealthy;
    assert_eq!(deliver(&mut sim, 1, unhealthy), []);
    assert_eq!(deliver(&mut sim, 1, second), []);
    assert_eq!(sim.routed("hello").len(), 1);
}

#[test]
fn a_restarted_agent_numbers_its_reports_from_one() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    sim.run(Span::secs(20));
    sim.agent(1).restart();
    let mut first = report(&mut sim, 1);
    assert_eq!(first.sequence, 1);
    first.processes[0].state = ProcessState::Unhealthy;
    deliver(&mut sim, 1, first);
    assert_eq!(sim.routed("hello"), []);
}

#[test]
fn a_report_of_a_worker_outside_the_topology_is_ignored() {
    let mut sim = Sim::new(1);
    let stranger = report(&mut sim, 1);
    assert_eq!(deliver(&mut sim, 9, stranger), []);
}

#[test]
fn undesired_processes_are_shown_and_never_routed() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 1));
    let mut odd = report(&mut sim, 2);
    let mut undesired = report(&mut sim, 1).processes[0].clone();
    odd.processes.push(undesired.clone());
    undesired.id = process("hello-77");
    odd.processes.push(undesired);
    deliver(&mut sim, 2, odd);
    assert_eq!(sim.routed("hello").len(), 1);
    let seen = sim.cluster().existing(&name("hello"));
    assert!(seen.contains(&(node(2), process("hello-77"))), "{seen:?}");
    assert!(
        seen.contains(&(node(2), process("hello-1"))),
        "a copy on the wrong worker"
    );
}

#[test]
fn a_process_that_its_agent_no_longer_reports_is_unrouted() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    let mut empty = report(&mut sim, 1);
    empty.processes.clear();
    deliver(&mut sim, 1, empty);
    assert_eq!(sim.routed("hello"), []);
    let view = sim.service("hello");
    assert_eq!(
        view.active.processes[0].report.state,
        ProcessState::Assigned
    );
    assert_eq!(view.active.healthy, 0);
}

#[test]
fn an_unchanged_report_causes_no_action() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    let usual = report(&mut sim, 1);
    assert_eq!(deliver(&mut sim, 1, usual), []);
}

#[test]
fn an_agent_that_lost_its_disk_gets_its_set_again() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 2));
    sim.agent(1).cut_power();
    sim.agent(1).lose_disk();
    sim.agent(1).power_on();
    sim.run(Span::secs(3));
    sim.until_settled("hello");
    assert_eq!(
        sim.ids("hello")[0].as_str(),
        "hello-1",
        "the same processes"
    );
}

#[test]
fn a_new_worker_is_sent_an_empty_set() {
    let sim = Sim::new(1);
    assert_eq!(sim.agents[&node(1)].desired.generation, Generation(1));
}

#[test]
fn the_view_of_a_worker_shows_what_it_reports() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 2));
    sim.run(Span::secs(2));
    let state = sim.cluster().state();
    let alive = &state.alive_nodes[0];
    assert_eq!((alive.processes, alive.version.as_str()), (2, "1.0.0"));
    assert_eq!(alive.generation_seen, alive.generation_desired);
    assert!(sim.now.since(alive.reported_at) <= Span::secs(1));
    assert_eq!(
        state.configured_services[0].name,
        state.active_services[0].name
    );
    assert_eq!(
        state.active_services[0].configured_service,
        "/v1/configured_services/hello"
    );
    assert_eq!(sim.cluster().node(&node(7)), None);
}
