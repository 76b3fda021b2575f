//! Volumes that are removed, given up, or adopted.

use tucano_api::{agent::VolumeInstance, state::VolumeState, units::Span};
use tucano_planner::{Action, Event};
use tucano_simulator::{Sim, new_disk, node, with_volumes, worker, workers};

use crate::volumes::{db, node_of, remove_service, slots, volume, volumes};

fn remove_volume(sim: &mut Sim, id: &str) -> Vec<Action> {
    let id = id.parse().unwrap();
    sim.event(Event::VolumeRemoved { id })
}

#[test]
fn a_volume_is_removed_only_when_no_process_and_no_service_needs_it() {
    let mut sim = Sim::new(2);
    sim.serve(db(2));
    let id = "db/data/2".parse().unwrap();
    let obstacle = sim.cluster().volume_obstacle(&id).unwrap();
    assert_eq!(
        obstacle,
        "volume db/data/2 is in use by process db-2: remove the service, or lower its `concurrency` below 2 first"
    );
    assert_eq!(remove_volume(&mut sim, "db/data/2"), []);
    let worker = node_of(&sim, 2);
    sim.deploy(db(1));
    assert!(
        sim.cluster()
            .volume_obstacle(&id)
            .unwrap()
            .contains("in use by process db-2")
    );
    sim.until_settled("db");
    sim.run(Span::secs(5));
    assert_eq!(sim.cluster().volume_obstacle(&id), None);
    remove_volume(&mut sim, "db/data/2");
    assert_eq!(volume(&sim, "db/data/2").state, VolumeState::Removing);
    let removed = sim
        .cluster()
        .desired_set(&node(worker))
        .unwrap()
        .removed_volumes;
    let instance = VolumeInstance { id, instance: 2 };
    assert_eq!(removed, std::slice::from_ref(&instance));
    sim.run(Span::secs(5));
    assert_eq!(volumes(&sim).len(), 1);
    assert!(!sim.agent(worker).volumes.all.contains_key(&instance));
    let set = sim.cluster().desired_set(&node(worker)).unwrap();
    assert!(set.removed_volumes.is_empty());
    // A new one has another instance.
    sim.serve(db(2));
    assert_eq!(volume(&sim, "db/data/2").volume.instance, 3);
}

#[test]
fn a_service_can_be_removed_with_its_volumes_and_configured_again_at_once() {
    let mut sim = Sim::new(2);
    sim.serve(db(2));
    remove_service(&mut sim, true);
    sim.deploy(db(2));
    sim.until_settled("db");
    sim.run(Span::secs(5));
    let instances: Vec<u64> = volumes(&sim).into_iter().map(|it| it.1).collect();
    assert_eq!(instances, [3, 4]);
    let all: usize = sim
        .agents
        .values()
        .map(|agent| agent.volumes.all.len())
        .sum();
    assert_eq!(all, 2);
}

#[test]
fn a_volume_on_a_worker_that_has_left_can_be_given_up() {
    let mut sim = Sim::new(2);
    sim.serve(db(2));
    let left = node_of(&sim, 2);
    let here = 3 - left;
    sim.agent(left).cut_power();
    sim.reconfigure(vec![worker(here)]);
    sim.run(Span::secs(10));
    sim.deploy(db(1));
    remove_volume(&mut sim, "db/data/2");
    assert_eq!(volumes(&sim).len(), 1);
    sim.serve(db(2));
    assert_eq!(volume(&sim, "db/data/2").node, node(here));
    // When the worker comes back, what it has is neither used nor removed.
    sim.agent(left).power_on();
    sim.reconfigure(workers(2));
    sim.run(Span::secs(30));
    assert_eq!(sim.agent(left).volumes.all.len(), 1);
    assert_eq!(sim.spread("db")[here - 1], 2);
}

#[test]
fn adoption_rebuilds_slots_and_volumes_and_reuses_no_instance() {
    let mut sim = Sim::new(2);
    sim.serve(db(3));
    sim.serve(db(2));
    let (before, processes) = (volumes(&sim), slots(&sim));
    assert_eq!(before.len(), 3);
    sim.replace_disk(new_disk(2));
    sim.run(Span::secs(10));
    sim.event(Event::Adopt);
    sim.run(Span::secs(10));
    assert_eq!(slots(&sim), processes);
    assert_eq!(volumes(&sim), before);
    assert_eq!(volume(&sim, "db/data/1").state, VolumeState::InUse);
    sim.serve(db(4));
    assert_eq!(volume(&sim, "db/data/4").volume.instance, 4);
}

#[test]
fn a_controller_with_an_older_database_gives_no_instance_out_twice() {
    let mut sim = Sim::new(1);
    sim.serve(db(1));
    let backup = sim.disk.clone();
    sim.serve(db(3));
    let mut older = backup;
    older.identity.epoch = older.identity.epoch.next();
    sim.replace_disk(older);
    sim.run(Span::secs(10));
    sim.event(Event::Adopt);
    sim.run(Span::secs(10));
    sim.serve(with_volumes("other", 1, &[("data", 64)]));
    assert!(volume(&sim, "other/data/1").volume.instance > 3);
}

#[test]
fn a_volume_that_is_removed_while_it_is_created_does_not_stay() {
    let mut sim = Sim::new(1);
    sim.agent(1).volumes.creation_time = Span::secs(30);
    sim.deploy(db(1));
    sim.run(Span::secs(5));
    assert_eq!(volume(&sim, "db/data/1").state, VolumeState::Creating);
    remove_service(&mut sim, true);
    sim.run(Span::secs(5));
    assert_eq!(volume(&sim, "db/data/1").state, VolumeState::Removing);
    // The same when the controller is another one.
    sim.restart_controller();
    sim.run(Span::secs(60));
    assert_eq!(volumes(&sim), []);
    assert!(sim.agent(1).volumes.all.is_empty());
}

#[test]
fn a_volume_that_an_older_database_records_can_be_given_up_so_that_its_worker_is_adopted() {
    let mut sim = Sim::new(1);
    sim.serve(db(1));
    let backup = sim.disk.clone();
    remove_service(&mut sim, true);
    sim.run(Span::secs(10));
    sim.serve(db(1));
    let processes = slots(&sim);
    let mut older = backup;
    older.identity.epoch = older.identity.epoch.next();
    sim.replace_disk(older);
    sim.run(Span::secs(10));
    let obstacle = |sim: &Sim| sim.cluster().adoption().nodes[0].obstacle.clone();
    let reason = obstacle(&sim).unwrap();
    assert!(reason.contains("remove the service first"), "{reason}");
    remove_service(&mut sim, false);
    sim.run(Span::secs(5));
    let reason = obstacle(&sim).unwrap();
    assert_eq!(
        reason,
        "volume db/data/1 is recorded with instance 1 on w1, and its process db-2 has instance 2: give the recorded one up first \
         with `tucano volume rm db/data/1`"
    );
    let id = "db/data/1".parse().unwrap();
    assert_eq!(sim.cluster().volume_obstacle(&id), None);
    remove_volume(&mut sim, "db/data/1");
    assert_eq!(obstacle(&sim), None);
    sim.event(Event::Adopt);
    sim.run(Span::secs(10));
    assert_eq!(slots(&sim), processes);
    let all: Vec<u64> = volumes(&sim).into_iter().map(|it| it.1).collect();
    assert_eq!(all, [2]);
    assert_eq!(volume(&sim, "db/data/1").state, VolumeState::InUse);
    // A volume that the worker on hold has is not given up.
    let mut older = sim.disk.clone();
    sim.deploy_image(db(1), 2);
    sim.until_settled("db");
    older.services.clear();
    older.processes.clear();
    older.identity.epoch = older.identity.epoch.next();
    sim.replace_disk(older);
    sim.run(Span::secs(10));
    let obstacle = sim.cluster().volume_obstacle(&id).unwrap();
    assert!(obstacle.contains("in use by process db-3"), "{obstacle}");
}
