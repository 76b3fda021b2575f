use tucano_api::{
    agent::ProcessState,
    ids::ProcessId,
    state::NodeCondition,
    units::{Bytes, Span},
};

use tucano_planner::Event;

use tucano_simulator::{Options, Sim, config, image, node, with_memory, workers};

/// Processes of the current revision.
fn current(sim: &Sim) -> Vec<ProcessId> {
    let processes = sim.service("hello").active.processes.into_iter();
    processes
        .filter(|p| p.current && !p.draining)
        .map(|p| p.report.id)
        .collect()
}

fn healthy_current(sim: &Sim) -> usize {
    let processes = sim.service("hello").active.processes.into_iter();
    processes
        .filter(|it| it.current && it.report.state == ProcessState::Healthy)
        .count()
}

fn tight(workers_count: usize, mib: u64) -> Sim {
    Sim::with(Options {
        workers: workers(workers_count),
        reservable: Bytes::mib(mib),
        ..Options::default()
    })
}

#[test]
fn a_new_image_replaces_all_processes_and_the_service_never_has_fewer_routed() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 6));
    let before = sim.ids("hello");
    sim.deploy_image(config("hello", 6), 2);
    sim.until("all are of the new revision", |sim| {
        assert_eq!(
            sim.routed("hello").len(),
            6,
            "old ones serve until new ones do"
        );
        current(sim).len() == 6 && sim.ids("hello").len() == 6
    });
    assert!(sim.ids("hello").iter().all(|id| !before.contains(id)));
    assert_eq!(sim.spread("hello"), [2, 2, 2]);
}

#[test]
fn at_most_half_of_the_processes_are_replaced_at_once() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 5));
    sim.deploy_image(config("hello", 5), 2);
    assert_eq!(current(&sim).len(), 3);
    let pending = sim.service("hello").active.pending;
    assert_eq!(pending[0].count, 2);
    assert_eq!(
        pending[0].reason,
        "waits for its turn: at most 3 processes are replaced at once"
    );
    sim.until_settled("hello");
}

#[test]
fn a_single_process_is_replaced() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    sim.deploy_image(config("hello", 1), 2);
    sim.until("the new one serves", |sim| {
        assert_eq!(sim.routed("hello").len(), 1);
        sim.routed("hello")[0].as_str() == "hello-2"
    });
    sim.until_settled("hello");
}

#[test]
fn all_are_replaced_at_once_where_no_old_one_is_healthy() {
    let mut sim = Sim::new(3);
    sim.workloads.unresponsive.insert(image(1));
    sim.deploy(config("hello", 6));
    sim.run(Span::secs(3));
    sim.deploy_image(config("hello", 6), 2);
    assert_eq!(current(&sim).len(), 6);
    sim.until_settled("hello");
}

#[test]
fn a_revision_that_never_becomes_healthy_leaves_the_old_ones_serving() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 4));
    let before = sim.routed("hello");
    sim.workloads.crashing.insert(image(2));
    sim.deploy_image(config("hello", 4), 2);
    sim.run(Span::secs(60));
    assert_eq!(sim.routed("hello"), before);
    assert_eq!(sim.service("hello").active.healthy, 4, "they serve");
    assert_eq!(
        current(&sim).len(),
        2,
        "no more are tried than at the start"
    );
    sim.deploy_image(config("hello", 4), 3);
    sim.until_settled("hello");
}

#[test]
fn a_partly_failed_rollout_keeps_the_old_processes_that_are_needed() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 4));
    sim.deploy_image(config("hello", 4), 2);
    sim.until("some new ones serve", |sim| healthy_current(sim) > 0);
    sim.workloads.unresponsive.insert(image(2));
    sim.run(Span::secs(30));
    assert_eq!(sim.routed("hello").len(), 4);
    assert_eq!(healthy_current(&sim), 2);
    assert_eq!(sim.service("hello").active.healthy, 4, "old ones serve");
}

#[test]
fn without_memory_for_both_the_old_one_is_stopped_first() {
    let mut sim = tight(2, 300);
    sim.serve(config("hello", 2));
    sim.deploy_image(config("hello", 2), 2);
    sim.until("all are replaced", |sim| {
        assert!(!sim.routed("hello").is_empty(), "one at a time");
        current(sim).len() == 2 && sim.routed("hello").len() == 2
    });
    sim.until_settled("hello");
}

#[test]
fn a_failing_revision_costs_only_the_process_that_made_room_for_it() {
    let mut sim = tight(3, 300);
    sim.serve(config("hello", 3));
    sim.workloads.crashing.insert(image(2));
    sim.deploy_image(config("hello", 3), 2);
    sim.run(Span::secs(30));
    assert_eq!(sim.routed("hello").len(), 2);
    sim.workloads.crashing.clear();
    sim.until_settled("hello");
}

#[test]
fn enough_old_processes_stop_on_one_worker_for_a_bigger_new_one() {
    let mut sim = tight(1, 600);
    sim.serve(config("hello", 2));
    sim.deploy_image(with_memory("hello", 1, 500), 2);
    sim.until_settled("hello");
}

#[test]
fn nothing_is_stopped_for_a_revision_that_fits_nowhere() {
    let mut sim = tight(2, 600);
    sim.serve(config("hello", 4));
    let before = sim.routed("hello");
    sim.deploy_image(with_memory("hello", 4, 1000), 2);
    sim.run(Span::secs(30));
    assert_eq!(sim.routed("hello"), before);
    assert_eq!(sim.service("hello").active.pending[0].count, 2);
}

#[test]
fn unhealthy_old_processes_make_room_at_once() {
    let mut sim = tight(2, 600);
    sim.workloads.crashing.insert(image(1));
    sim.deploy(config("hello", 4));
    sim.run(Span::secs(3));
    sim.deploy_image(config("hello", 4), 2);
    let pending = &sim.service("hello").active.pending[0];
    assert_eq!(
        (pending.count, pending.reason.as_str()),
        (4, "waits for memory that stopping processes still have")
    );
    sim.until("all are placed", |sim| current(sim).len() == 4);
    sim.until_settled("hello");
}

#[test]
fn memory_that_a_service_frees_for_itself_is_not_taken_by_another() {
    let mut sim = tight(1, 600);
    sim.serve(config("hello", 2));
    sim.deploy(config("eager", 2));
    sim.deploy_image(config("hello", 2), 2);
    sim.until("hello is replaced", |sim| current(sim).len() == 2);
    sim.until_settled("hello");
    assert_eq!(sim.spread("eager"), [0]);
}

#[test]
fn freed_memory_is_not_taken_by_a_service_that_is_reconciled_in_the_same_step() {
    let mut sim = tight(1, 900);
    sim.serve(config("hello", 2));
    sim.deploy(config("eager", 2));
    sim.run(Span::secs(2));
    assert_eq!(sim.spread("eager"), [1], "one waits for room");
    sim.deploy_image(config("hello", 2), 2);
    // The drain time has passed, and the report says that eager is worse off than before.
    sim.now = sim.now.after(Span::secs(1));
    let now = sim.now;
    let mut report = Box::new(sim.agent(1).report(now));
    for process in &mut report.processes {
        if process.service.as_str() == "eager" {
            process.state = ProcessState::Unhealthy;
        }
    }
    let node = node(1);
    sim.event(Event::NodeReported { node, report });
    sim.until("the room is used", |sim| {
        assert_eq!(sim.spread("eager"), [1]);
        current(sim).len() == 1
    });
}

#[test]
fn a_rollback_is_an_ordinary_rollout() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    sim.workloads.crashing.insert(image(2));
    sim.deploy_image(config("hello", 2), 2);
    sim.run(Span::secs(5));
    sim.deploy_image(config("hello", 2), 1);
    sim.until_settled("hello");
    assert_eq!(sim.service("hello").configured.revision.0, 3);
}

#[test]
fn old_processes_of_a_lost_worker_are_replaced_by_current_ones() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 4));
    sim.workloads.unresponsive.insert(image(2));
    sim.deploy_image(config("hello", 4), 2);
    sim.run(Span::secs(2));
    sim.agent(1).cut_power();
    sim.run(Span::secs(5));
    assert_eq!(
        sim.routed("hello").len(),
        2,
        "the old ones of the other worker"
    );
    sim.workloads.unresponsive.clear();
    sim.agent(1).power_on();
    sim.deploy_image(config("hello", 4), 3);
    sim.until_settled("hello");
}

#[test]
fn a_restart_replaces_all_processes_by_ones_of_the_same_revision_and_none_is_missed() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 6));
    let before = sim.ids("hello");
    let revision = sim.service("hello").configured.revision;
    sim.restart("hello");
    sim.until("all are new", |sim| {
        assert_eq!(
            sim.routed("hello").len(),
            6,
            "old ones serve until new ones do"
        );
        sim.ids("hello").len() == 6 && current(sim).len() == 6
    });
    assert!(sim.ids("hello").iter().all(|id| !before.contains(id)));
    assert_eq!(sim.service("hello").configured.revision, revision);
    // A controller that starts again does not begin it again.
    let after = sim.ids("hello");
    sim.restart_controller();
    sim.run(Span::secs(30));
    assert_eq!(sim.ids("hello"), after);
}

#[test]
fn a_restart_whose_new_processes_crash_keeps_the_old_ones() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    let before = sim.ids("hello");
    sim.workloads.crashing.insert(image(1));
    sim.restart("hello");
    sim.run(Span::secs(60));
    let routed: Vec<ProcessId> = sim.routed("hello");
    assert!(before.iter().all(|id| routed.contains(id)), "{routed:?}");
}

#[test]
fn a_change_of_limits_does_not_spare_processes_from_a_restart() {
    let mut sim = Sim::new(2);
    sim.serve(with_memory("hello", 2, 64));
    let before = sim.ids("hello");
    sim.restart("hello");
    // Running processes would take it over otherwise.
    sim.deploy(with_memory("hello", 2, 96));
    sim.until_settled("hello");
    assert!(sim.ids("hello").iter().all(|id| !before.contains(id)));
}

#[test]
fn a_process_that_comes_back_from_before_a_restart_is_not_taken_in() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    let before = sim.ids("hello");
    sim.network.cut_off.insert(node(1));
    sim.until_condition(1, NodeCondition::Dead);
    sim.restart("hello");
    sim.network.cut_off.clear();
    sim.until_settled("hello");
    assert!(sim.ids("hello").iter().all(|id| !before.contains(id)));
}

#[test]
fn a_restart_of_what_does_not_exist_changes_nothing() {
    let mut sim = Sim::new(1);
    assert!(
        sim.event(Event::ServiceRestarted {
            name: "nobody".parse().unwrap()
        })
        .is_empty()
    );
}
