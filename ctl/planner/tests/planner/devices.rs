//! Devices: each is one process's at a time, from its placing until its container is gone.

use std::collections::BTreeSet;

use tucano_api::{
    ids::{DeviceName, ProcessId},
    service::{NodeDevices, ServiceConfig},
    units::Span,
};
use tucano_planner::Event;
use tucano_simulator::{
    Sim, config,
    fixtures::{devices, with_devices},
    name, new_disk, node, with_volumes,
};

const ONE: &str = "acme.com/gpu=1";

/// A cluster whose workers have so many devices.
fn cluster(counts: &[usize]) -> Sim {
    let mut sim = Sim::new(counts.len());
    for (number, count) in counts.iter().enumerate() {
        sim.agent(number + 1).devices = devices(*count);
    }
    sim.run(Span::secs(2));
    sim
}

/// The devices of a service's processes, each with its worker.
fn held(sim: &Sim, service: &str) -> BTreeSet<String> {
    let processes = sim.cluster().snapshot().processes;
    let own = processes
        .into_iter()
        .filter(|it| it.service == name(service));
    let all = own.flat_map(|it| {
        let node = it.node;
        it.devices
            .into_iter()
            .map(move |device| format!("{node} {}", device.name))
    });
    all.collect()
}

fn set<const N: usize>(words: [&str; N]) -> BTreeSet<String> {
    words.map(str::to_owned).into()
}

fn why(sim: &Sim, service: &str) -> String {
    sim.service(service).active.pending[0].reason.clone()
}

fn counts(sim: &Sim, number: usize) -> (u32, u32) {
    let alive = sim.cluster().node(&node(number)).unwrap().alive.unwrap();
    let of_kind = alive.devices.values().next().copied().unwrap_or_default();
    (of_kind.free, of_kind.all)
}

#[test]
fn each_process_has_a_device_of_its_own_and_what_does_not_fit_says_so() {
    let mut sim = cluster(&[2, 1, 0]);
    sim.deploy(with_devices("a", 4, ONE));
    sim.run(Span::secs(4));
    assert_eq!(sim.spread("a"), [2, 1, 0]);
    assert_eq!(held(&sim, "a"), set(["w1 0", "w1 1", "w2 0"]));
    assert_eq!(
        why(&sim, "a"),
        "`devices`: no worker that fits otherwise has acme.com/gpu=1 free (w1: 0 free of 2 acme.com/gpu, w2: 0 free of 1 \
         acme.com/gpu, w3: no acme.com/gpu)"
    );
    assert_eq!(
        (counts(&sim, 1), counts(&sim, 2), counts(&sim, 3)),
        ((0, 2), (0, 1), (0, 0))
    );
    sim.agent(3).devices = devices(1);
    sim.until_settled("a");
    assert_eq!(sim.spread("a"), [2, 1, 1]);
    sim.remove("a");
    sim.run(Span::secs(4));
    assert_eq!(counts(&sim, 1), (2, 2));
}

#[test]
fn another_name_of_a_device_and_the_name_of_all_are_the_same_devices() {
    let mut sim = cluster(&[2]);
    sim.serve(with_devices("named", 1, "acme.com/gpu=id-0"));
    sim.serve(with_devices("any", 1, ONE));
    assert_eq!(
        held(&sim, "any"),
        set(["w1 1"]),
        "0 is taken by its other name"
    );
    sim.deploy(with_devices("whole", 1, "acme.com/gpu=all"));
    sim.run(Span::secs(3));
    assert!(held(&sim, "whole").is_empty());
    sim.remove("named");
    sim.run(Span::secs(3));
    assert!(held(&sim, "whole").is_empty(), "one is still taken");
    sim.remove("any");
    sim.until_settled("whole");
    assert_eq!(held(&sim, "whole"), set(["w1 all"]));
    assert_eq!(counts(&sim, 1), (0, 2));
    sim.deploy(with_devices("more", 1, "acme.com/gpu=id-1 acme.com/gpu=1"));
    sim.remove("whole");
    sim.until_settled("more");
    assert_eq!(held(&sim, "more"), set(["w1 id-1", "w1 0"]));
}

#[test]
fn a_rollout_frees_the_devices_first_where_there_are_no_others() {
    let mut sim = cluster(&[1, 1]);
    sim.serve(with_devices("a", 2, ONE));
    let before = sim.ids("a");
    sim.deploy_image(with_devices("a", 2, ONE), 2);
    sim.until_settled("a");
    let after = sim.ids("a");
    assert!(before.iter().all(|id| !after.contains(id)));
    assert_eq!(held(&sim, "a"), set(["w1 0", "w2 0"]));
}

#[test]
fn a_device_is_kept_until_its_container_is_gone() {
    let mut sim = cluster(&[1]);
    sim.serve(with_devices("a", 1, ONE));
    sim.deploy(with_devices("b", 1, ONE));
    sim.network.cut_off.insert(node(1));
    sim.remove("a");
    assert!(
        sim.ids("b").is_empty(),
        "its worker has not said that it is gone"
    );
    sim.network.cut_off.clear();
    sim.until_settled("b");
}

#[test]
fn processes_with_devices_stay_over_restarts_and_adoptions() {
    let mut sim = cluster(&[2]);
    sim.serve(with_devices("a", 1, "acme.com/gpu=id-1"));
    let before = held(&sim, "a");
    sim.restart_controller();
    sim.run(Span::secs(4));
    assert_eq!(held(&sim, "a"), before);
    sim.replace_disk(new_disk(2));
    sim.run(Span::secs(4));
    assert_eq!(counts(&sim, 1), (1, 2), "of another controller's process");
    sim.event(Event::Adopt);
    sim.until_settled("a");
    assert_eq!(held(&sim, "a"), before);
    sim.serve(with_devices("b", 1, ONE));
    assert_eq!(held(&sim, "b"), set(["w1 0"]));
}

#[test]
fn a_healthy_process_stays_when_its_device_vanishes_and_nothing_is_placed_there() {
    let mut sim = cluster(&[1, 1]);
    sim.serve(with_devices("a", 1, ONE));
    let ids = sim.ids("a");
    sim.agent(1).devices = NodeDevices::new();
    sim.run(Span::secs(10));
    assert_eq!(
        sim.ids("a"),
        ids,
        "what describes it may be renewed this moment"
    );
    sim.serve(with_devices("b", 1, ONE));
    assert_eq!(held(&sim, "b"), set(["w2 0"]));
    sim.remove("b");
    sim.run(Span::secs(3));
    // It ends, and cannot begin again there.
    let now = sim.now;
    sim.workloads.crashing.insert(tucano_simulator::image(1));
    sim.agent(1).oom_kill(&ids[0], now);
    sim.until("another one has the other worker's device", |sim| {
        held(sim, "a").contains("w2 0")
    });
}

#[test]
fn a_device_that_has_another_name_is_no_other_processs() {
    let mut sim = cluster(&[2]);
    sim.serve(with_devices("a", 1, ONE));
    // The description is written anew, without numbers.
    let zero: DeviceName = "0".parse().unwrap();
    let other: DeviceName = "id-0".parse().unwrap();
    for names in sim.agent(1).devices.values_mut() {
        names.remove(&zero);
        names.insert(other.clone(), [other.clone()].into());
    }
    sim.run(Span::secs(2));
    sim.deploy(with_devices("b", 2, ONE));
    sim.run(Span::secs(3));
    assert_eq!(held(&sim, "b"), set(["w1 1"]));
    assert_eq!(counts(&sim, 1), (0, 2));
}

#[test]
fn slots_keep_their_devices_over_an_update_while_others_wait_for_them() {
    let mut sim = cluster(&[1]);
    let db = |args: &[&str]| ServiceConfig {
        args: Some(args.iter().map(|it| (*it).to_owned()).collect()),
        devices: with_devices("x", 1, ONE).devices,
        ..with_volumes("db", 1, &[("data", 64)])
    };
    sim.serve(db(&[]));
    sim.deploy(with_devices("other", 1, ONE));
    sim.run(Span::secs(2));
    sim.deploy(db(&["new"]));
    sim.until_settled("db");
    assert_eq!(held(&sim, "db"), set(["w1 0"]));
    assert!(held(&sim, "other").is_empty());
}

#[test]
fn device_nodes_are_shared_and_only_where_they_are_listed() {
    let mut sim = cluster(&[0, 0]);
    sim.deploy(with_devices("a", 2, "/dev/fuse"));
    sim.run(Span::secs(2));
    assert!(why(&sim, "a").contains("lists it in `device_paths` of its agent.toml (w1, w2)"));
    sim.agent(2).device_paths = vec!["/dev/fuse".to_owned()];
    sim.until_settled("a");
    assert_eq!(sim.spread("a"), [0, 2]);
}

#[test]
fn agents_of_an_earlier_version_get_no_process_with_devices() {
    let mut sim = cluster(&[1, 1]);
    sim.agent(1).is_old = true;
    sim.agent(1).restart();
    sim.run(Span::secs(3));
    sim.deploy(with_devices("a", 2, ONE));
    sim.serve(config("plain", 2));
    assert_eq!(sim.spread("a"), [0, 1]);
    assert_eq!(sim.spread("plain"), [1, 1]);
}

#[test]
fn records_of_an_earlier_version_have_no_devices() {
    let mut sim = cluster(&[1]);
    sim.serve(config("a", 1));
    let record = serde_json::to_value(&sim.disk.processes[0]).unwrap();
    assert!(record.get("devices").is_none());
    let read: tucano_planner::ProcessRecord = serde_json::from_value(record).unwrap();
    assert_eq!(read, sim.disk.processes[0]);
}

#[test]
fn a_job_waits_for_its_device_and_a_command_in_a_service_has_none() {
    let mut sim = cluster(&[1]);
    sim.serve(with_devices("a", 1, ONE));
    let request = |service: &str| Event::RunRequested {
        service: name(service),
        command: (service == "a").then(|| vec!["x".to_owned()]),
    };
    sim.event(request("a"));
    sim.run(Span::secs(1));
    let runs: Vec<ProcessId> = sim.agent(1).begun.iter().cloned().collect();
    assert_eq!(runs.len(), 1, "it waits for nothing");
    let job = ServiceConfig {
        devices: with_devices("x", 1, ONE).devices,
        ..tucano_simulator::fixtures::job("j")
    };
    sim.deploy(job);
    sim.event(request("j"));
    sim.run(Span::secs(10));
    assert!(held(&sim, "j").is_empty());
    sim.remove("a");
    sim.until("the job has it", |sim| held(sim, "j") == set(["w1 0"]));
}
