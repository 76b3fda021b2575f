//! Volumes that are moved to another worker.

use tucano_api::{
    state::{AlertKind, VolumeState},
    units::{Bytes, Span},
};
use tucano_planner::{Action, Event};
use tucano_simulator::{Sim, alerts, config, new_disk, node, with_volumes, workers};

use crate::volumes::{db, node_of, reason, remove_service, slots, volume, volumes};

fn move_volume(sim: &mut Sim, id: &str, to: usize) -> Vec<Action> {
    let (id, to) = (id.parse().unwrap(), node(to));
    sim.event(Event::VolumeMoved { id, to })
}

fn obstacle(sim: &Sim, id: &str, to: usize) -> String {
    let obstacle = sim.cluster().move_obstacle(&id.parse().unwrap(), &node(to));
    obstacle.unwrap_or_default()
}

/// Where the only volume of a service is, and where it is not.
fn places(sim: &Sim) -> (usize, usize) {
    let here = node_of(sim, 1);
    (here, 3 - here)
}

fn has(sim: &mut Sim, worker: usize, instance: u64) -> bool {
    let all = sim.agent(worker).volumes.all.keys();
    all.into_iter().any(|it| it.instance == instance)
}

#[test]
fn a_slot_stops_is_copied_and_goes_on_elsewhere() {
    let mut sim = Sim::new(2);
    sim.serve(with_volumes("db", 1, &[("data", 64), ("log", 32)]));
    let (here, there) = places(&sim);
    move_volume(&mut sim, "db/data/1", there);
    let fills = |sim: &Sim| sim.cluster().desired_set(&node(there)).unwrap().fills;
    assert!(fills(&sim).is_empty(), "the process may still write");
    let moving = volume(&sim, "db/log/1").moving.unwrap();
    assert_eq!(moving.to, node(there));
    sim.until("the copy begins", |sim| fills(sim).len() == 2);
    assert!(slots(&sim).is_empty());
    assert_eq!(
        reason(&sim, "db"),
        format!("volume db/data/1 is being moved from w{here} to w{there}")
    );
    let exports = sim.cluster().desired_set(&node(here)).unwrap().exports;
    assert_eq!(exports.len(), 2);
    assert!(exports.iter().all(|it| it.to == node(there)));
    sim.until_settled("db");
    sim.run(Span::secs(3));
    let log = ("db/log/1".to_owned(), 4, node(there));
    assert_eq!(
        volumes(&sim),
        [("db/data/1".to_owned(), 3, node(there)), log]
    );
    assert!(!has(&mut sim, here, 1) && !has(&mut sim, here, 2));
    assert_eq!(volume(&sim, "db/data/1").state, VolumeState::InUse);
    assert_eq!(volume(&sim, "db/data/1").moving, None);
    // And back again.
    move_volume(&mut sim, "db/data/1", here);
    sim.until("it is back", |sim| node_of(sim, 1) == here);
    sim.until_settled("db");
}

#[test]
fn the_earlier_volume_exists_until_the_next_one_is_reported() {
    let mut sim = Sim::new(2);
    sim.serve(db(1));
    let (here, there) = places(&sim);
    move_volume(&mut sim, "db/data/1", there);
    sim.until("the copy is whole", |sim| {
        let set = sim.cluster().desired_set(&node(there)).unwrap();
        set.fills.iter().any(|it| it.install)
    });
    sim.network.cut_off.insert(node(there));
    sim.restart_controller();
    sim.run(Span::secs(60));
    assert!(has(&mut sim, here, 1), "the other worker has not told");
    sim.network.mend();
    sim.until_settled("db");
    sim.run(Span::secs(3));
    assert!(!has(&mut sim, here, 1) && has(&mut sim, there, 2));
}

#[test]
fn a_move_to_a_lost_worker_is_given_up_and_what_it_copied_is_removed() {
    let mut sim = Sim::new(2);
    sim.serve(db(1));
    let (here, there) = places(&sim);
    move_volume(&mut sim, "db/data/1", there);
    sim.until("the copy begins", |sim| {
        let set = sim.cluster().desired_set(&node(there)).unwrap();
        !set.fills.is_empty()
    });
    sim.network.cut_off.insert(node(there));
    sim.until_settled("db");
    assert_eq!(node_of(&sim, 1), here);
    let sent = alerts(&sim).into_iter().map(|(kind, _)| kind);
    assert!(sent.into_iter().any(|it| it == AlertKind::VolumeNotMoved));
    sim.network.mend();
    sim.run(Span::secs(60));
    assert_eq!(volumes(&sim).len(), 1);
    assert!(!has(&mut sim, there, 2));
    sim.run(Span::secs(5));
    assert_eq!(sim.service("db").active.processes.len(), 1);
}

#[test]
fn a_move_is_given_up_by_moving_the_volume_to_where_it_is() {
    let mut sim = Sim::new(3);
    sim.serve(db(1));
    let here = node_of(&sim, 1);
    let [there, other] = match here {
        1 => [2, 3],
        2 => [1, 3],
        _ => [1, 2],
    };
    move_volume(&mut sim, "db/data/1", there);
    assert_eq!(
        obstacle(&sim, "db/data/1", other),
        format!(
            "volume db/data/1 is being moved to w{there}: `tucano volume move db/data/1 w{here}` keeps it on w{here}"
        )
    );
    assert_eq!(move_volume(&mut sim, "db/data/1", other), []);
    let kept = sim.cluster().volume_obstacle(&"db/data/1".parse().unwrap());
    assert!(kept.unwrap().contains("is being moved to"));
    move_volume(&mut sim, "db/data/1", here);
    sim.until_settled("db");
    assert_eq!(node_of(&sim, 1), here);
    sim.run(Span::secs(5));
    assert_eq!(volumes(&sim).len(), 1);
}

#[test]
fn a_move_that_cannot_succeed_is_refused() {
    let mut sim = Sim::new(3);
    sim.agent(3).volumes.capacity = Bytes::mib(32);
    sim.agent(3).restart();
    sim.run(Span::secs(2));
    sim.serve(db(1));
    let (here, there) = places(&sim);
    assert_eq!(
        obstacle(&sim, "db/data/1", here),
        format!("volume db/data/1 is on w{here} already")
    );
    assert_eq!(
        obstacle(&sim, "db/data/1", 3),
        "w3 has room for 32 MiB of volumes, and those of the slot take 64 MiB"
    );
    assert_eq!(
        obstacle(&sim, "db/data/1", 9),
        "there is no worker w9 in the topology"
    );
    sim.agent(there).is_old = true;
    sim.agent(there).restart();
    sim.run(Span::secs(2));
    assert_eq!(
        obstacle(&sim, "db/data/1", there),
        format!("the agent of w{there} does not copy volumes: upgrade it first")
    );
    sim.agent(there).is_old = false;
    sim.agent(there).restart();
    sim.run(Span::secs(2));
    sim.serve(config("large", 1));
    assert_eq!(obstacle(&sim, "db/data/1", there), "");
    sim.network.cut_off.insert(node(there));
    sim.run(Span::secs(60));
    let lost = obstacle(&sim, "db/data/1", there);
    assert!(lost.contains("does not report since"), "{lost}");
    assert!(lost.ends_with(": bring it back first"), "{lost}");
}

#[test]
fn a_volume_without_a_service_is_moved_and_found_by_the_next_one() {
    let mut sim = Sim::new(2);
    sim.serve(db(1));
    let (here, there) = places(&sim);
    remove_service(&mut sim, false);
    sim.run(Span::secs(5));
    move_volume(&mut sim, "db/data/1", there);
    sim.until("it is there", |sim| {
        volume(sim, "db/data/1").node == node(there) && volumes(sim).len() == 1
    });
    assert!(!has(&mut sim, here, 1) || here != there);
    sim.serve(db(1));
    assert_eq!(volume(&sim, "db/data/1").volume.instance, 2);
    assert_eq!(node_of(&sim, 1), there);
}

#[test]
fn a_service_can_be_removed_with_volumes_that_are_being_moved() {
    let mut sim = Sim::new(2);
    sim.serve(db(1));
    let (here, there) = places(&sim);
    move_volume(&mut sim, "db/data/1", there);
    sim.run(Span::millis(900));
    remove_service(&mut sim, true);
    sim.until("nothing is left", |sim| volumes(sim).is_empty());
    assert!(!has(&mut sim, here, 1) && !has(&mut sim, there, 2));
}

#[test]
fn a_move_goes_on_with_another_controller_and_a_topology_without_the_target_ends_it() {
    let mut sim = Sim::new(2);
    sim.serve(db(1));
    let (here, there) = places(&sim);
    move_volume(&mut sim, "db/data/1", there);
    sim.restart_controller();
    let only = workers(2).into_iter();
    sim.reconfigure(only.filter(|it| it.name == node(here)).collect());
    sim.until_settled("db");
    assert_eq!(node_of(&sim, 1), here);
    assert_eq!(volumes(&sim).len(), 1);
}

#[test]
fn a_controller_without_memory_removes_neither_copy() {
    let mut sim = Sim::new(2);
    sim.serve(db(1));
    let (here, there) = places(&sim);
    move_volume(&mut sim, "db/data/1", there);
    sim.until("it is there", |sim| {
        sim.agents[&node(there)].volumes.all.len() == 1
    });
    sim.replace_disk(new_disk(2));
    sim.run(Span::secs(30));
    assert!(has(&mut sim, there, 2), "{here}");
}
