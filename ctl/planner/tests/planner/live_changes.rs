//! Changes that running processes take: limits, probes, the time to stop.

use tucano_api::{
    agent::ProcessMetrics,
    ids::{ProcessId, Revision},
    service::{Health, ServiceConfig},
    units::{Bytes, Span},
};
use tucano_planner::Event;

use tucano_simulator::{Options, Sim, config, image, node, with_memory, workers};

const MIB: u64 = 1 << 20;

fn with_workers(count: usize, mib: u64) -> Sim {
    Sim::with(Options {
        workers: workers(count),
        reservable: Bytes::mib(mib),
        ..Options::default()
    })
}

fn reserved(sim: &Sim, number: usize) -> u64 {
    sim.cluster().reserved(&node(number)) / MIB
}

/// Memory limits of the containers of a service, in MiB.
fn limits(sim: &Sim, service: &str) -> Vec<u64> {
    let containers = sim
        .agents
        .values()
        .flat_map(|agent| agent.containers.values());
    let of_service = containers.filter(|it| it.desired.config.name.as_str() == service);
    of_service
        .map(|it| it.desired.config.memory.0 / MIB)
        .collect()
}

/// Lets time pass until all changes of a service are in force.
fn until_changed(sim: &mut Sim, service: &str) {
    sim.until_settled(service);
    sim.until("no change is outstanding", |sim| {
        let view = sim.service(service);
        view.active.processes.iter().all(|it| !it.changing)
    });
}

#[test]
fn a_change_of_memory_keeps_the_processes_and_every_one_of_them_routed() {
    let mut sim = Sim::new(2);
    sim.serve(with_memory("hello", 4, 64));
    let before = sim.ids("hello");
    for mib in [128, 32] {
        sim.deploy(with_memory("hello", 4, mib));
        sim.until("the limits are changed", |sim| {
            assert_eq!(sim.routed("hello").len(), 4);
            limits(sim, "hello") == [mib; 4]
        });
        until_changed(&mut sim, "hello");
        assert_eq!(sim.ids("hello"), before);
        assert_eq!((reserved(&sim, 1), reserved(&sim, 2)), (2 * mib, 2 * mib));
    }
    let processes = sim.service("hello").active.processes;
    assert!(
        processes
            .iter()
            .all(|it| it.report.revision == Revision(3) && it.report.restarts == 0)
    );
}

#[test]
fn probes_limits_and_the_time_to_stop_need_no_new_processes() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 2));
    let before = sim.ids("hello");
    let health = Health {
        interval: Span::secs(7),
        ..Health::default()
    };
    let changes = [
        ServiceConfig {
            health,
            ..config("hello", 2)
        },
        ServiceConfig {
            stop_timeout: Span::secs(3),
            ..config("hello", 2)
        },
        ServiceConfig {
            cpus: Some(0.5),
            ..config("hello", 2)
        },
        ServiceConfig {
            pids: 100,
            ..config("hello", 2)
        },
        ServiceConfig {
            disk: Bytes::mib(10),
            ..config("hello", 2)
        },
    ];
    for changed in changes {
        sim.deploy(changed.clone());
        until_changed(&mut sim, "hello");
        assert_eq!(sim.ids("hello"), before);
        let agent = &sim.agents[&node(1)];
        assert!(
            agent
                .containers
                .values()
                .all(|it| it.desired.config == changed)
        );
    }
}

#[test]
fn a_change_that_needs_new_processes_as_well_replaces_them() {
    let mut sim = Sim::new(2);
    sim.serve(with_memory("hello", 2, 64));
    let before = sim.ids("hello");
    sim.serve(ServiceConfig {
        args: Some(vec!["b".to_owned()]),
        ..with_memory("hello", 2, 128)
    });
    assert!(sim.ids("hello").iter().all(|id| !before.contains(id)));
    let before = sim.ids("hello");
    let with_args = |mib| ServiceConfig {
        args: Some(vec!["b".to_owned()]),
        ..with_memory("hello", 2, mib)
    };
    sim.deploy_image(with_args(64), 2);
    sim.until_settled("hello");
    assert!(sim.ids("hello").iter().all(|id| !before.contains(id)));
}

#[test]
fn a_process_that_cannot_grow_where_it_is_moves_to_a_worker_that_has_the_memory() {
    let mut sim = with_workers(3, 1000);
    let small = sim.agents.get_mut(&node(1)).unwrap();
    small.metrics.memory_reservable = Bytes::mib(500);
    sim.serve(with_memory("hello", 2, 300));
    assert_eq!(sim.spread("hello"), [1, 1, 0]);
    let before = sim.ids("hello");
    sim.deploy(with_memory("hello", 2, 600));
    sim.until_settled("hello");
    until_changed(&mut sim, "hello");
    let kept = sim
        .ids("hello")
        .into_iter()
        .filter(|id| before.contains(id));
    assert_eq!(kept.count(), 1, "one had room");
    sim.until("the other one is gone", |sim| {
        limits(sim, "hello") == [600; 2]
    });
    assert_eq!(sim.spread("hello"), [0, 1, 1]);
}

#[test]
fn memory_is_given_to_others_only_when_the_agent_has_lowered_the_limit() {
    let mut sim = with_workers(1, 1000);
    sim.serve(with_memory("hello", 1, 800));
    sim.deploy(with_memory("hello", 1, 300));
    assert_eq!(reserved(&sim, 1), 800, "it may still use it");
    sim.deploy(with_memory("other", 1, 600));
    assert_eq!(sim.ids("other").len(), 0);
    // The simulation checks that containers never have more than the worker.
    sim.until_settled("other");
    assert_eq!(reserved(&sim, 1), 900);
}

#[test]
fn a_restarted_controller_reserves_what_a_process_may_still_use() {
    let mut sim = with_workers(1, 1000);
    sim.serve(with_memory("hello", 1, 800));
    sim.network.unreachable.insert(node(1));
    sim.network.lost = 100;
    sim.deploy(with_memory("hello", 1, 300));
    sim.restart_controller();
    sim.network.mend();
    let report = sim.agents.get_mut(&node(1)).unwrap();
    let now = sim.now;
    let report = Box::new(report.report(now));
    sim.event(Event::NodeReported {
        node: node(1),
        report,
    });
    assert_eq!(reserved(&sim, 1), 800);
    until_changed(&mut sim, "hello");
    assert_eq!(reserved(&sim, 1), 300);
}

#[test]
fn going_back_to_an_earlier_limit_keeps_the_processes_too() {
    let mut sim = Sim::new(1);
    sim.serve(with_memory("hello", 1, 64));
    let before = sim.ids("hello");
    sim.deploy(with_memory("hello", 1, 128));
    // Before the agent has changed anything.
    sim.deploy(with_memory("hello", 1, 64));
    until_changed(&mut sim, "hello");
    assert_eq!((sim.ids("hello"), reserved(&sim, 1)), (before, 64));
}

#[test]
fn agents_of_an_earlier_version_get_new_processes_one_after_the_other() {
    let mut sim = Sim::new(2);
    for number in [1, 2] {
        sim.agents.get_mut(&node(number)).unwrap().is_old = true;
    }
    sim.serve(with_memory("hello", 4, 64));
    let before = sim.ids("hello");
    sim.deploy(with_memory("hello", 4, 128));
    sim.until("all are replaced", |sim| {
        assert_eq!(sim.routed("hello").len(), 4);
        sim.ids("hello").len() == 4 && limits(sim, "hello") == [128; 4]
    });
    assert!(sim.ids("hello").iter().all(|id| !before.contains(id)));
}

#[test]
fn an_upgrade_of_agents_restarts_nothing() {
    let mut sim = Sim::new(2);
    for number in [1, 2] {
        sim.agents.get_mut(&node(number)).unwrap().is_old = true;
    }
    sim.serve(with_memory("hello", 4, 64));
    let before = sim.ids("hello");
    for number in [1, 2] {
        let agent = sim.agents.get_mut(&node(number)).unwrap();
        agent.is_old = false;
        agent.restart();
    }
    sim.run(Span::secs(30));
    assert_eq!(sim.ids("hello"), before);
}

/// Has a worker report what a process uses.
fn report_use(sim: &mut Sim, id: &ProcessId, metrics: ProcessMetrics) {
    let agent = sim.agents.get_mut(&node(1)).unwrap();
    let mut report = agent.report(sim.now);
    for process in report.processes.iter_mut().filter(|it| it.id == *id) {
        process.metrics = Some(metrics.clone());
        process.disk_used = Some(Bytes::mib(700));
    }
    let report = Box::new(report);
    sim.event(Event::NodeReported {
        node: node(1),
        report,
    });
}

#[test]
fn a_limit_below_what_a_process_uses_is_an_obstacle() {
    let mut sim = Sim::new(1);
    sim.serve(with_memory("hello", 2, 256));
    let id = sim.ids("hello")[1].clone();
    let used = ProcessMetrics {
        memory_current: Bytes::mib(200),
        memory_reclaimable: Bytes::mib(80),
        memory_limit: Bytes::mib(256),
        pids_current: 40,
        pids_limit: 512,
        ..ProcessMetrics::default()
    };
    report_use(&mut sim, &id, used);
    let obstacle = |config: ServiceConfig| sim.cluster().resize_obstacle(&config, &image(1));
    let memory = obstacle(with_memory("hello", 2, 100)).unwrap();
    let expected = "process hello-2 on w1 uses 120 MiB now, more than `memory` = 100 MiB";
    assert!(memory.starts_with(expected), "{memory}");
    assert_eq!(
        obstacle(with_memory("hello", 2, 120)),
        None,
        "the rest is reclaimed"
    );
    let pids = obstacle(ServiceConfig {
        pids: 39,
        ..config("hello", 2)
    })
    .unwrap();
    let expected = "process hello-2 on w1 has 40 processes and threads now, more than `pids` = 39";
    assert!(pids.starts_with(expected), "{pids}");
    let disk = obstacle(ServiceConfig {
        disk: Bytes::mib(600),
        ..config("hello", 2)
    })
    .unwrap();
    assert!(
        disk.contains("uses 700 MiB now, more than `disk` = 600 MiB"),
        "{disk}"
    );
    // New processes use nothing yet.
    let replaced = ServiceConfig {
        args: Some(Vec::new()),
        ..with_memory("hello", 2, 100)
    };
    assert_eq!(obstacle(replaced), None);
    let other = sim
        .cluster()
        .resize_obstacle(&with_memory("hello", 2, 100), &image(2));
    assert_eq!(other, None);
}
