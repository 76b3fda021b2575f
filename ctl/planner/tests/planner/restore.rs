use tucano_api::{
    state::NodeCondition,
    units::{Span, Timestamp},
};
use tucano_planner::{Action, Cluster, Counters, Event, Record, Settings, Snapshot};

use tucano_simulator::{Options, START, Sim, alerts, config, disk, node, settings, workers};

#[test]
fn a_restart_of_the_controller_changes_nothing_that_runs() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 7));
    let (ids, table) = (sim.ids("hello"), sim.published.clone());
    sim.restart_controller();
    sim.run(Span::secs(20));
    assert_eq!((sim.ids("hello"), sim.published.clone()), (ids, table));
    assert_eq!(alerts(&sim), []);
}

#[test]
fn nothing_is_published_until_all_workers_that_were_alive_have_reported() {
    let mut sim = Sim::with(Options {
        settings: Settings {
            lease: Span::secs(5),
            ..settings()
        },
        ..Options::default()
    });
    sim.serve(config("hello", 3));
    let table = sim.published.take();
    sim.network.cut_off.insert(node(3));
    sim.restart_controller();
    sim.run(Span::secs(2));
    assert_eq!(sim.published, None, "one is still awaited");
    assert_eq!(sim.condition(3), NodeCondition::Unknown);
    assert_eq!(sim.condition(1), NodeCondition::Alive);
    sim.network.cut_off.clear();
    sim.until("it is published", |sim| sim.published.is_some());
    assert_eq!(sim.published, table);
}

#[test]
fn a_worker_that_died_with_the_controller_is_missing_a_lease_later() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 6));
    sim.agent(3).cut_power();
    sim.restart_controller();
    sim.until_settled("hello");
    assert_eq!(sim.spread("hello"), [3, 3, 0]);
    assert_eq!(alerts(&sim).len(), 2);
}

#[test]
fn a_deploy_while_workers_are_awaited_is_persisted_and_placed_afterwards() {
    let mut sim = Sim::new(3);
    sim.restart_controller();
    sim.deploy(config("hello", 6));
    assert_eq!(sim.disk.services.len(), 1, "acknowledged means on disk");
    sim.until_settled("hello");
    assert_eq!(sim.spread("hello"), [2, 2, 2]);
}

#[test]
fn a_drain_that_was_under_way_is_finished() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 2));
    sim.deploy(config("hello", 1));
    sim.restart_controller();
    sim.until_settled("hello");
}

#[test]
fn a_controller_that_dies_between_persisting_and_sending_resumes() {
    for carried_out in 0..4 {
        let mut sim = Sim::new(2);
        sim.serve(config("hello", 2));
        sim.crash_after = Some(carried_out);
        sim.deploy(config("hello", 4));
        assert!(sim.cluster.is_none());
        sim.run(Span::secs(1));
        sim.start_controller();
        sim.run(Span::secs(10));
        let expected = if carried_out == 0 { 2 } else { 4 };
        assert_eq!(
            sim.routed("hello").len(),
            expected,
            "acknowledged or not at all"
        );
    }
}

#[test]
fn inconsistent_records_are_deleted() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    let mut broken = sim.disk.clone();
    broken.services[0].revisions.clear();
    broken.counters = Counters::default();
    let only_one = workers(1);
    let mut cluster = Cluster::restore(broken.clone(), only_one, settings(), START);
    let actions = cluster.step(START, Event::Tick);
    let Some(Action::Persist(records)) = actions.first() else {
        panic!("{actions:?}");
    };
    disk::write(&mut broken, records);
    assert_eq!((broken.services.len(), broken.processes.len()), (0, 0));
    assert_eq!(
        broken.nodes.len(),
        1,
        "the worker that left the topology is gone"
    );
    assert_eq!(
        broken.counters.last_process, 2,
        "no number is given out again"
    );
}

#[test]
fn times_from_the_future_do_not_stop_a_drain() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 2));
    sim.deploy(config("hello", 1));
    for process in &mut sim.disk.processes {
        process.draining_since = process.draining_since.map(|_| Timestamp(u64::MAX));
    }
    let mut cluster = Cluster::restore(sim.disk.clone(), workers(1), settings(), sim.now);
    let later = sim.now.after(Span::millis(1500));
    let actions = cluster.step(later, Event::Tick);
    let gone = actions.iter().any(|action| match action {
        Action::Persist(records) => records.iter().any(|r| matches!(r, Record::ProcessGone(_))),
        _ => false,
    });
    assert!(gone, "{actions:?}");
}

#[test]
fn records_survive_a_json_round_trip() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 3));
    sim.deploy(config("hello", 2));
    let text = serde_json::to_string(&sim.disk).unwrap();
    assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), sim.disk);
}
