use tucano_api::{
    ids::ProcessId,
    state::NodeCondition,
    units::{Bytes, Span},
};
use tucano_planner::{Settings, Worker};

use tucano_simulator::{Sim, alerts, config, ip, node, settings, worker, workers};

#[test]
fn a_worker_that_is_added_gets_processes() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 4));
    sim.reconfigure(workers(2));
    assert_eq!(sim.condition(2), NodeCondition::Unknown);
    sim.until("it is even", |sim| sim.spread("hello") == [2, 2]);
    assert_eq!(alerts(&sim), []);
}

#[test]
fn a_removed_worker_ends_its_processes_which_are_placed_elsewhere() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 6));
    sim.reconfigure(workers(2));
    assert_eq!(sim.spread("hello"), [3, 3]);
    sim.until_settled("hello");
    sim.until("they are ended", |sim| {
        sim.agents[&node(3)].containers.is_empty()
    });
    assert_eq!(sim.cluster().nodes().len(), 2);
    assert_eq!(sim.disk.nodes.len(), 2);
    assert_eq!(alerts(&sim), []);
}

#[test]
fn a_removed_worker_can_be_added_again() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 4));
    sim.reconfigure(workers(1));
    sim.until_settled("hello");
    sim.reconfigure(workers(2));
    sim.until("it is even", |sim| sim.spread("hello") == [2, 2]);
    sim.until_settled("hello");
}

#[test]
fn generations_are_not_reused_when_a_worker_is_removed_and_added_again() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 4));
    let before = sim.cluster().desired_set(&node(2)).unwrap().generation;
    sim.network.cut_off.insert(node(2));
    sim.reconfigure(workers(1));
    sim.restart_controller();
    sim.reconfigure(workers(2));
    assert!(sim.cluster().desired_set(&node(2)).unwrap().generation > before);
}

#[test]
fn a_worker_removed_while_no_controller_ran_is_sent_a_new_set_when_it_is_added_again() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    sim.network.cut_off.insert(node(2));
    sim.workers = workers(1);
    sim.restart_controller();
    sim.reconfigure(workers(2));
    sim.until_condition(2, NodeCondition::Dead);
    let before = sim.agents[&node(2)].desired.clone();
    assert_eq!(before.processes.len(), 1);
    sim.network.cut_off.remove(&node(2));
    sim.until("it has the new set", |sim| {
        let desired = &sim.agents[&node(2)].desired;
        *desired != before && Some(desired) == sim.cluster().desired_set(&node(2)).as_ref()
    });
}

#[test]
fn a_worker_that_moves_is_routed_at_its_new_address() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    sim.reconfigure(vec![Worker {
        ip: ip(77),
        ..worker(1)
    }]);
    let endpoint = &sim.published.as_ref().unwrap()[0].endpoints[0];
    assert_eq!(endpoint.address.ip(), ip(77));
}

#[test]
fn the_order_of_the_topology_may_change() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 7));
    let on = |sim: &Sim, id: &ProcessId| sim.cluster().node_of(id).cloned();
    let before: Vec<_> = sim.ids("hello").iter().map(|id| on(&sim, id)).collect();
    sim.reconfigure(vec![worker(3), worker(1), worker(2)]);
    let after: Vec<_> = sim.ids("hello").iter().map(|id| on(&sim, id)).collect();
    assert_eq!(before, after);
    sim.serve(config("hello", 9));
    assert_eq!(sim.spread("hello"), [3, 3, 3]);
}

#[test]
fn the_same_worker_twice_counts_once() {
    let mut sim = Sim::new(1);
    sim.reconfigure(vec![worker(1), worker(1)]);
    assert_eq!(sim.cluster().nodes().len(), 1);
}

#[test]
fn a_new_domain_renames_all_derived_hosts() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    sim.settings = Settings {
        domain: "Apps.Example".into(),
        ..settings()
    };
    sim.reconfigure(workers(1));
    assert_eq!(
        sim.published.as_ref().unwrap()[0].hosts,
        ["hello.apps.example"]
    );
}

#[test]
fn a_longer_lease_is_in_force_at_once() {
    let mut sim = Sim::new(2);
    sim.settings = Settings {
        lease: Span::secs(20),
        ..settings()
    };
    sim.reconfigure(workers(2));
    sim.agent(1).cut_power();
    sim.run(Span::secs(15));
    assert_eq!(sim.condition(1), NodeCondition::Alive);
    sim.run(Span::secs(10));
    assert_eq!(sim.condition(1), NodeCondition::Dead);
}

#[test]
fn fewer_kept_revisions_are_dropped_at_once() {
    let mut sim = Sim::new(1);
    for memory in 1..=4 {
        sim.serve(tucano_simulator::with_memory("hello", 1, 64 * memory));
    }
    sim.settings = Settings {
        revisions_kept: 1,
        ..settings()
    };
    sim.reconfigure(workers(1));
    assert_eq!(sim.disk.services[0].revisions.len(), 1);
    assert_eq!(
        sim.disk.services[0].revisions[0].config.memory,
        Bytes::mib(256)
    );
}

#[test]
fn the_same_configuration_again_changes_nothing() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    let before = (sim.disk.clone(), sim.published.clone());
    sim.reconfigure(workers(2));
    assert_eq!((sim.disk.clone(), sim.published.clone()), before);
}
