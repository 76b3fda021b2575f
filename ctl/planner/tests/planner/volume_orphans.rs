//! Volumes that workers have and no record tells of.

use tucano_api::{
    ids::VolumeId,
    state::VolumeState,
    units::{Bytes, Span},
};
use tucano_planner::Event;
use tucano_simulator::{Sim, config, node, with_volumes, worker, workers};

use crate::volumes::{db, node_of, reason, remove_service, volume};

/// A cluster whose worker `w1` came back with `db/data/1` after that was given up.
pub(crate) fn with_orphan(count: usize) -> Sim {
    let mut sim = Sim::new(1);
    sim.serve(db(1));
    sim.agent(1).cut_power();
    sim.reconfigure((2..=count.max(2)).map(worker).collect());
    sim.run(Span::secs(10));
    remove_service(&mut sim, false);
    let id = "db/data/1".parse().unwrap();
    sim.event(Event::VolumeRemoved { id });
    assert!(!sim.cluster().has_volume(&"db/data/1".parse().unwrap()));
    sim.agent(1).power_on();
    sim.reconfigure(workers(count));
    sim.run(Span::secs(10));
    assert_eq!(sim.agent(1).volumes.all.len(), 1);
    sim
}

#[test]
fn a_new_slot_is_not_placed_where_another_volume_of_its_name_is() {
    let mut sim = with_orphan(2);
    // It would be the turn of w1.
    sim.serve(config("web", 1));
    assert_eq!(sim.spread("web"), [0, 1]);
    sim.serve(db(1));
    assert_eq!(sim.spread("db"), [0, 1]);
    // The other slots may go there.
    sim.serve(db(2));
    assert_eq!(node_of(&sim, 2), 1);
    assert_eq!(sim.agent(1).volumes.all.len(), 2);
}

#[test]
fn a_slot_that_only_another_volume_of_its_name_keeps_from_a_worker_says_so_and_waits() {
    let mut sim = with_orphan(1);
    sim.deploy(db(1));
    sim.run(Span::secs(10));
    assert_eq!(
        reason(&sim, "db"),
        "another volume db/data/1 is on w1, which no service uses: remove it with `tucano volume rm db/data/1 --on w1`"
    );
    assert_eq!(sim.ids("db"), []);
    sim.agent(1).volumes.all.clear();
    sim.until_settled("db");
    assert_eq!(volume(&sim, "db/data/1").node, node(1));
}

#[test]
fn a_volume_without_a_record_is_shown_and_can_be_removed_from_its_worker() {
    let mut sim = with_orphan(1);
    assert_eq!(volume(&sim, "db/data/1").state, VolumeState::Orphan);
    let id: VolumeId = "db/data/1".parse().unwrap();
    assert!(sim.cluster().has_orphan(&id, &node(1)));
    assert_eq!(sim.cluster().orphan_obstacle(&id, &node(1)), None);
    sim.deploy(db(1));
    sim.agent(1).cut_power();
    sim.run(Span::secs(10));
    sim.agent(1).power_on();
    sim.event(Event::OrphanRemoved {
        id: id.clone(),
        node: node(1),
    });
    assert!(
        sim.cluster()
            .desired_set(&node(1))
            .unwrap()
            .removed_volumes
            .is_empty(),
        "refused while it is away"
    );
    sim.run(Span::secs(10));
    sim.event(Event::OrphanRemoved {
        id: id.clone(),
        node: node(1),
    });
    assert_eq!(volume(&sim, "db/data/1").state, VolumeState::Removing);
    assert_eq!(
        reason(&sim, "db"),
        "waits until another volume db/data/1 is removed from w1"
    );
    sim.restart_controller();
    sim.until_settled("db");
    assert_eq!(volume(&sim, "db/data/1").volume.instance, 2);
    // One with a record is not removed in this way.
    assert!(!sim.cluster().has_orphan(&id, &node(1)));
    sim.event(Event::OrphanRemoved { id, node: node(1) });
    sim.run(Span::secs(10));
    assert_eq!(sim.agent(1).volumes.all.len(), 1);
}

#[test]
fn an_added_volume_is_not_created_where_another_one_of_its_name_is() {
    let mut sim = with_orphan(1);
    sim.serve(with_volumes("db", 1, &[("log", 64)]));
    let before = sim.ids("db");
    sim.deploy(with_volumes("db", 1, &[("log", 64), ("data", 64)]));
    sim.run(Span::secs(10));
    assert_eq!(sim.ids("db"), before, "it goes on running");
    assert!(reason(&sim, "db").starts_with("another volume db/data/1 is on w1"));
    sim.agent(1)
        .volumes
        .all
        .retain(|volume, _| volume.id.volume_name() == "log");
    sim.until_settled("db");
}

#[test]
fn volumes_without_a_record_take_room_on_their_worker() {
    let mut sim = with_orphan(1);
    sim.agent(1).volumes.capacity = Bytes::mib(100);
    sim.run(Span::secs(5));
    sim.deploy(with_volumes("other", 1, &[("data", 64)]));
    sim.run(Span::secs(5));
    assert_eq!(
        reason(&sim, "other"),
        "no worker has room for 64 MiB of volumes (w1: 36 MiB free of 100 MiB)"
    );
    sim.agent(1).volumes.all.clear();
    sim.until_settled("other");
}
