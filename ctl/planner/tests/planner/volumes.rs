//! Services with volumes: where their slots run, and what must not happen to their data.

use tucano_api::{
    ids::{NodeName, ProcessId},
    reasons::PendingReason,
    service::{Mount, ServiceConfig},
    state::{AlertKind, VolumeState, VolumeView},
    units::{Bytes, Span},
};
use tucano_planner::{Action, Event, Record};
use tucano_simulator::{
    Options, Sim, alerts, config, image, name, node, of_kind, with_memory, with_volumes, worker,
    workers,
};

pub(crate) fn db(slots: u32) -> ServiceConfig {
    with_volumes("db", slots, &[("data", 64)])
}

pub(crate) fn volumes(sim: &Sim) -> Vec<(String, u64, NodeName)> {
    let all = sim.cluster().volumes().into_iter();
    all.map(|it| (it.volume.id.to_string(), it.volume.instance, it.node))
        .collect()
}

pub(crate) fn volume(sim: &Sim, id: &str) -> VolumeView {
    let mut all = sim.cluster().volumes().into_iter();
    all.find(|it| it.volume.id.as_str() == id).unwrap()
}

pub(crate) fn node_of(sim: &Sim, slot: u32) -> usize {
    let node = volume(sim, &format!("db/data/{slot}")).node;
    node.as_str()[1..].parse().unwrap()
}

/// The desired processes of a service with their slots.
pub(crate) fn slots(sim: &Sim) -> Vec<(ProcessId, Option<u32>)> {
    let processes = sim.cluster().snapshot().processes.into_iter();
    let own = processes.filter(|it| it.service == name("db"));
    own.map(|it| (it.id, it.slot)).collect()
}

pub(crate) fn reason(sim: &Sim, service: &str) -> String {
    let pending = sim.service(service).active.pending;
    pending[0].reason.clone()
}

fn cause(sim: &Sim, service: &str) -> PendingReason {
    let pending = sim.service(service).active.pending;
    pending[0].cause.clone().unwrap()
}

pub(crate) fn remove_service(sim: &mut Sim, volumes: bool) {
    let name = name("db");
    sim.event(Event::ServiceRemoved { name, volumes });
}

#[test]
fn each_slot_has_a_process_and_volumes_that_are_recorded_before_anything_is_assigned() {
    let mut sim = Sim::new(3);
    let config = with_volumes("db", 3, &[("data", 64), ("log", 32)]);
    let (config, image) = (Box::new(config), image(1));
    let actions = sim.event(Event::ServiceConfigured {
        config,
        image,
        platforms: Default::default(),
    });
    let Some(Action::Persist(records)) = actions.first() else {
        panic!("{actions:?}");
    };
    let created = records.iter().filter(|it| matches!(it, Record::Volume(_)));
    assert_eq!(created.count(), 6);
    sim.until_settled("db");
    assert_eq!(sim.spread("db"), [1, 1, 1]);
    let set = sim.cluster().desired_set(&node(1)).unwrap();
    let process = &set.processes[0];
    assert_eq!(process.slot, Some(1));
    let names: Vec<_> = process
        .volumes
        .iter()
        .map(|it| it.volume.id.as_str())
        .collect();
    assert_eq!(names, ["db/data/1", "db/log/1"]);
    assert_eq!(volume(&sim, "db/data/1").state, VolumeState::InUse);
}

#[test]
fn a_volume_may_be_created_until_it_was_reported() {
    let mut sim = Sim::new(1);
    sim.deploy(db(1));
    let may_create = |sim: &Sim| {
        let set = sim.cluster().desired_set(&node(1)).unwrap();
        set.processes[0].volumes[0].may_create
    };
    assert!(may_create(&sim));
    assert_eq!(volume(&sim, "db/data/1").state, VolumeState::Creating);
    sim.until_settled("db");
    assert!(!may_create(&sim));
    sim.restart_controller();
    assert!(!may_create(&sim));
}

#[test]
fn a_slot_waits_for_the_worker_of_its_volume_and_says_so_once() {
    let mut sim = Sim::new(3);
    sim.serve(db(3));
    let before = volumes(&sim);
    let away = node_of(&sim, 2);
    sim.agent(away).cut_power();
    sim.run(Span::secs(20));
    let expected = format!("volume db/data/2 is on w{away}, which does not report since ");
    assert!(
        reason(&sim, "db").starts_with(&expected),
        "{}",
        reason(&sim, "db")
    );
    assert!(reason(&sim, "db").ends_with(": bring it back"));
    assert!(matches!(
        volume(&sim, "db/data/2").state,
        VolumeState::Away { .. }
    ));
    sim.restart_controller();
    sim.run(Span::secs(20));
    sim.deploy_image(db(3), 2);
    sim.deploy_image(db(3), 1);
    sim.run(Span::secs(20));
    assert!(
        reason(&sim, "db").starts_with(&expected),
        "{}",
        reason(&sim, "db")
    );
    assert_eq!(of_kind(&sim.alerts, AlertKind::VolumeAway), 1);
    assert_eq!(volumes(&sim), before);
    sim.agent(away).power_on();
    sim.until_settled("db");
    assert_eq!(volumes(&sim), before);
    assert_eq!(of_kind(&sim.alerts, AlertKind::VolumeBack), 1);
    assert!(alerts(&sim).contains(&(AlertKind::VolumeBack, "db/data/2")));
}

#[test]
fn a_volume_stays_where_it_is_while_its_worker_is_not_in_the_topology() {
    let mut sim = Sim::new(3);
    sim.serve(db(3));
    let before = volumes(&sim);
    let left = node_of(&sim, 1);
    sim.reconfigure(
        (1..=3)
            .filter(|number| *number != left)
            .map(worker)
            .collect(),
    );
    sim.run(Span::secs(30));
    assert!(reason(&sim, "db").contains("which is not in the topology since "));
    sim.restart_controller();
    sim.run(Span::secs(30));
    assert!(reason(&sim, "db").contains("which is not in the topology since "));
    assert_eq!(of_kind(&sim.alerts, AlertKind::VolumeAway), 1);
    assert_eq!(volumes(&sim), before);
    sim.reconfigure(workers(3));
    sim.until_settled("db");
    assert_eq!(volumes(&sim), before);
}

#[test]
fn a_worker_that_left_the_topology_while_no_controller_ran_keeps_its_volumes() {
    let mut sim = Sim::new(2);
    sim.serve(db(2));
    let before = volumes(&sim);
    let left = node_of(&sim, 1);
    sim.cluster = None;
    sim.workers.retain(|it| it.name != node(left));
    sim.start_controller();
    sim.run(Span::secs(30));
    assert_eq!(volumes(&sim), before);
    assert!(alerts(&sim).contains(&(AlertKind::VolumeAway, "db/data/1")));
}

#[test]
fn volumes_outlive_their_service_and_a_lower_concurrency() {
    let mut sim = Sim::new(3);
    sim.serve(db(3));
    let before = volumes(&sim);
    for slots in [1, 3, 2, 3] {
        sim.deploy_image(db(slots), u8::try_from(slots).unwrap());
        sim.until_settled("db");
        assert_eq!(volumes(&sim), before);
    }
    remove_service(&mut sim, false);
    sim.run(Span::secs(20));
    assert_eq!(volume(&sim, "db/data/1").state, VolumeState::Idle);
    assert!(!volume(&sim, "db/data/1").configured);
    sim.serve(db(3));
    assert_eq!(volumes(&sim), before);
}

#[test]
fn the_slots_above_a_lower_concurrency_are_stopped() {
    let mut sim = Sim::new(2);
    sim.serve(db(4));
    sim.deploy(db(2));
    sim.until_settled("db");
    let slots: Vec<_> = slots(&sim).into_iter().map(|(_, slot)| slot).collect();
    assert_eq!(slots, [Some(1), Some(2)]);
}

#[test]
fn a_new_revision_stops_first_and_one_slot_at_a_time() {
    let mut sim = Sim::new(3);
    sim.serve(db(3));
    let before = sim.ids("db");
    sim.deploy_image(db(3), 2);
    assert!(reason(&sim, "db").contains("at most 1 process is replaced at once"));
    sim.until("all slots are replaced", |sim| {
        let routed = sim.routed("db").len();
        assert!(routed >= 2, "one slot at a time");
        routed == 3 && sim.ids("db").iter().all(|id| !before.contains(id))
    });
    sim.until_settled("db");
    // The highest slot first.
    let mut slots = slots(&sim);
    slots.sort_by_key(|(id, _)| id.number());
    let order: Vec<_> = slots.into_iter().map(|(_, slot)| slot).collect();
    assert_eq!(order, [Some(3), Some(2), Some(1)]);
}

#[test]
fn a_new_revision_that_does_not_become_healthy_stops_no_further_slot() {
    let mut sim = Sim::new(3);
    sim.serve(db(3));
    sim.workloads.crashing.insert(image(2));
    sim.deploy_image(db(3), 2);
    sim.run(Span::secs(60));
    assert_eq!(sim.routed("db").len(), 2);
    sim.deploy_image(db(3), 1);
    sim.until_settled("db");
    // Only the slot that was replaced is replaced again.
    let mut numbers: Vec<u64> = sim.ids("db").iter().map(ProcessId::number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 5]);
}

#[test]
fn a_slot_is_not_stopped_where_the_new_process_has_no_room() {
    let mut sim = Sim::with(Options {
        workers: workers(2),
        reservable: Bytes::mib(1024),
        ..Options::default()
    });
    sim.serve(db(2));
    let large = ServiceConfig {
        memory: Bytes::mib(2048),
        ..db(2)
    };
    sim.deploy_image(large, 2);
    sim.run(Span::secs(60));
    assert_eq!(sim.routed("db").len(), 2);
    assert!(matches!(cause(&sim, "db"), PendingReason::NoMemory { .. }));
}

#[test]
fn a_worker_that_returns_keeps_the_processes_of_its_slots() {
    let mut sim = Sim::new(2);
    sim.serve(db(2));
    let before = slots(&sim);
    let away = node_of(&sim, 2);
    sim.network.cut_off.insert(node(away));
    sim.run(Span::secs(10));
    assert_eq!(slots(&sim).len(), 1);
    sim.network.cut_off.remove(&node(away));
    sim.until_settled("db");
    assert_eq!(slots(&sim), before);
}

#[test]
fn an_outdated_process_of_a_returning_worker_is_gone_before_its_slot_starts_again() {
    let mut sim = Sim::new(2);
    sim.serve(db(2));
    let away = node_of(&sim, 2);
    sim.network.cut_off.insert(node(away));
    sim.run(Span::secs(10));
    sim.deploy_image(db(2), 2);
    sim.restart_controller();
    sim.run(Span::secs(10));
    sim.network.cut_off.remove(&node(away));
    // The simulation checks that the container is gone first.
    sim.until_settled("db");
}

#[test]
fn memory_is_kept_for_a_slot_on_the_worker_of_its_volumes() {
    let mut sim = Sim::with(Options {
        workers: workers(2),
        reservable: Bytes::mib(1024),
        ..Options::default()
    });
    let db = ServiceConfig {
        memory: Bytes::mib(768),
        ..db(2)
    };
    sim.serve(db);
    let away = node_of(&sim, 1);
    sim.agent(away).cut_power();
    sim.run(Span::secs(10));
    sim.deploy(with_memory("other", 2, 512));
    sim.restart_controller();
    sim.run(Span::secs(5));
    sim.agent(away).power_on();
    sim.until_settled("db");
    assert_eq!(sim.service("other").active.pending[0].count, 2);
}

#[test]
fn a_service_that_gets_volumes_gives_its_processes_up_one_by_one() {
    let mut sim = Sim::new(3);
    sim.serve(config("db", 3));
    sim.deploy(db(3));
    sim.until("all processes have slots", |sim| {
        assert!(sim.routed("db").len() >= 2, "one at a time");
        let slots = slots(sim);
        slots.len() == 3 && slots.iter().all(|(_, slot)| slot.is_some())
    });
    sim.until_settled("db");
    sim.deploy(config("db", 3));
    sim.until_settled("db");
    assert!(slots(&sim).iter().all(|(_, slot)| slot.is_none()));
    assert_eq!(volumes(&sim).len(), 3);
}

#[test]
fn a_volume_that_is_added_later_is_created_where_the_slots_others_are() {
    let mut sim = Sim::new(3);
    sim.serve(db(3));
    sim.serve(with_volumes("db", 3, &[("data", 64), ("log", 32)]));
    for slot in 1..=3 {
        let data = volume(&sim, &format!("db/data/{slot}"));
        assert_eq!(volume(&sim, &format!("db/log/{slot}")).node, data.node);
    }
}

#[test]
fn services_with_volumes_are_never_moved() {
    let mut sim = Sim::new(2);
    sim.agent(2).cut_power();
    sim.run(Span::secs(10));
    sim.serve(db(4));
    let before = slots(&sim);
    sim.agent(2).power_on();
    sim.run(Span::secs(60));
    assert_eq!(slots(&sim), before);
    assert_eq!(sim.spread("db"), [4, 0]);
}

#[test]
fn a_volume_grows_without_a_new_process_and_does_not_shrink() {
    let mut sim = Sim::new(2);
    sim.serve(db(2));
    let before = slots(&sim);
    let larger = with_volumes("db", 2, &[("data", 128)]);
    assert_eq!(sim.cluster().resize_obstacle(&larger, &image(1)), None);
    sim.serve(larger);
    assert_eq!(slots(&sim), before);
    assert_eq!(volume(&sim, "db/data/1").size, Bytes::mib(128));
    sim.run(Span::secs(5));
    let obstacle = sim.cluster().resize_obstacle(&db(2), &image(1)).unwrap();
    assert_eq!(
        obstacle,
        "volume db/data/1 has 128 MiB, and volumes do not shrink to 64 MiB: write `size` = \"128MiB\" or more"
    );
    remove_service(&mut sim, false);
    assert!(sim.cluster().resize_obstacle(&db(2), &image(1)).is_some());
    let too_large = with_volumes("db", 2, &[("data", 8192)]);
    let obstacle = sim
        .cluster()
        .resize_obstacle(&too_large, &image(1))
        .unwrap();
    assert_eq!(
        obstacle,
        "the volumes on w1 would grow by 7.9 GiB, and it has room for 3.9 GiB more of 4 GiB"
    );
}

#[test]
fn a_growth_that_a_worker_could_not_make_can_be_taken_back() {
    let mut sim = Sim::new(1);
    sim.serve(db(1));
    sim.agent(1).volumes.can_grow = false;
    sim.serve(with_volumes("db", 1, &[("data", 128)]));
    sim.run(Span::secs(10));
    let smaller = |size| with_volumes("db", 1, &[("data", size)]);
    let obstacle = sim.cluster().resize_obstacle(&smaller(32), &image(1));
    assert_eq!(
        obstacle.unwrap(),
        "volume db/data/1 has 64 MiB, and volumes do not shrink to 32 MiB: write `size` = \"64MiB\" or more"
    );
    assert_eq!(sim.cluster().resize_obstacle(&db(1), &image(1)), None);
    sim.serve(db(1));
    assert_eq!(volume(&sim, "db/data/1").size, Bytes::mib(64));
    // One that was made after all is recorded.
    let instance = volume(&sim, "db/data/1").volume;
    sim.agent(1).volumes.all.insert(instance, Bytes::mib(128));
    sim.run(Span::secs(5));
    assert_eq!(volume(&sim, "db/data/1").size, Bytes::mib(128));
    assert!(sim.cluster().resize_obstacle(&db(1), &image(1)).is_some());
}

#[test]
fn full_workers_take_no_new_volumes_and_the_reason_has_the_figures() {
    let mut sim = Sim::new(2);
    for agent in sim.agents.values_mut() {
        agent.volumes.capacity = Bytes::mib(100);
    }
    sim.run(Span::secs(2));
    sim.deploy(db(3));
    sim.run(Span::secs(5));
    assert_eq!(sim.spread("db"), [1, 1]);
    assert_eq!(
        reason(&sim, "db"),
        "no worker has room for 64 MiB of volumes (w1: 36 MiB free of 100 MiB, w2: 36 MiB free of 100 MiB)"
    );
    sim.agent(2).volumes.capacity = Bytes::mib(128);
    sim.until_settled("db");
    assert_eq!(sim.spread("db"), [1, 2]);
}

#[test]
fn workers_whose_agents_do_not_know_a_key_are_no_place_for_a_service() {
    let mut sim = Sim::new(2);
    for number in 1..=2 {
        sim.agent(number).is_old = true;
    }
    sim.run(Span::secs(2));
    for config in [
        db(1),
        ServiceConfig {
            init: true,
            ..config("web", 1)
        },
    ] {
        let service = config.name.to_string();
        let key = if config.init { "init" } else { "volume" };
        sim.deploy(config);
        sim.run(Span::secs(5));
        assert_eq!(
            reason(&sim, &service),
            format!(
                "no worker's agent knows `{key}` of its configuration: upgrade the agent of w1, w2"
            )
        );
    }
    sim.agent(2).is_old = false;
    sim.until_settled("db");
    sim.until_settled("web");
    assert_eq!(sim.spread("db"), [0, 1]);
    assert_eq!(sim.spread("web"), [0, 1]);
}

#[test]
fn an_image_is_only_mounted_where_the_agent_knows_of_such_mounts() {
    let mut sim = Sim::new(2);
    sim.agent(1).unknown_keys = vec!["mount.image"];
    sim.agent(2).unknown_keys = vec!["mount.image"];
    sim.run(Span::secs(2));
    let mount = |mount: Mount| ServiceConfig {
        mount: vec![mount],
        ..config("web", 2)
    };
    sim.serve(mount(Mount {
        path: "/cache".into(),
        tmpfs: Some(Bytes::mib(1)),
        ..Mount::default()
    }));
    assert_eq!(sim.spread("web"), [1, 1]);
    sim.deploy(mount(Mount {
        path: "/models".into(),
        image: Some("models/llm:1".into()),
        digest: Some(image(2)),
        ..Mount::default()
    }));
    sim.run(Span::secs(5));
    assert_eq!(
        reason(&sim, "web"),
        "no worker's agent knows `mount.image` of its configuration: upgrade the agent of w1, w2"
    );
    sim.agent(2).unknown_keys.clear();
    sim.until_settled("web");
    assert_eq!(sim.spread("web"), [0, 2]);
}

#[test]
fn a_directory_of_the_worker_is_only_had_where_the_agent_lists_it() {
    let mut sim = Sim::new(2);
    let media = ServiceConfig {
        mount: vec![Mount {
            path: "/media".into(),
            host: Some("/srv/media/films".into()),
            read_only: true,
            ..Mount::default()
        }],
        ..config("web", 2)
    };
    sim.deploy(media);
    assert_eq!(
        reason(&sim, "web"),
        "no worker lists /srv/media/films in `host_paths` of its agent.toml (w1, w2)"
    );
    sim.agent(1).host_paths = vec!["/srv/media-old".into()];
    sim.agent(2).host_paths = vec!["/srv/media".into()];
    sim.until_settled("web");
    assert_eq!(sim.spread("web"), [0, 2]);
}

#[test]
fn a_volume_that_is_not_there_is_alerted_and_never_created_again() {
    let mut sim = Sim::new(1);
    sim.serve(db(1));
    let before = volumes(&sim);
    sim.agent(1).cut_power();
    sim.agent(1).volumes.mounted = false;
    sim.run(Span::secs(5));
    sim.agent(1).power_on();
    sim.run(Span::secs(20));
    assert_eq!(
        reason(&sim, "db"),
        "volume db/data/1 on w1 cannot be used: it is not where it was. It is not made again"
    );
    assert_eq!(of_kind(&sim.alerts, AlertKind::VolumeMissing), 1);
    assert!(matches!(
        volume(&sim, "db/data/1").state,
        VolumeState::Missing { .. }
    ));
    sim.agent(1).volumes.mounted = true;
    sim.until_settled("db");
    assert!(alerts(&sim).contains(&(AlertKind::VolumeBack, "db/data/1")));
    sim.agent(1).volumes.all.clear();
    sim.restart_controller();
    sim.run(Span::secs(20));
    assert_eq!(of_kind(&sim.alerts, AlertKind::VolumeMissing), 2);
    assert_eq!(volumes(&sim), before);
}
