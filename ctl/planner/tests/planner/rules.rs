//! Rules of placement: labels, spread, everywhere, with, apart, CPUs, architectures.

use tucano_api::{
    reasons::PendingReason,
    service::{Placement, ServiceConfig},
    units::{Bytes, Span},
};
use tucano_planner::Platforms;
use tucano_simulator::{
    Options, Sim, config, image, labelled, labels, name, placed, with_memory, with_volumes,
};

fn cluster(labels: &[&str]) -> Sim {
    let workers = labels.iter().enumerate();
    Sim::with(Options {
        workers: workers
            .map(|(index, text)| labelled(index + 1, text))
            .collect(),
        ..Options::default()
    })
}

fn on(text: &str) -> Placement {
    Placement {
        labels: labels(text),
        ..Placement::default()
    }
}

fn spread() -> Placement {
    Placement {
        spread: Some("zone".parse().unwrap()),
        ..Placement::default()
    }
}

fn everywhere() -> ServiceConfig {
    let placement = Placement {
        everywhere: true,
        ..Placement::default()
    };
    placed("logs", 0, placement)
}

fn with(service: &str) -> Placement {
    Placement {
        with: vec![name(service)],
        ..Placement::default()
    }
}

fn apart(service: &str) -> Placement {
    Placement {
        apart_from: vec![name(service)],
        ..Placement::default()
    }
}

fn reason(sim: &Sim, service: &str) -> String {
    let pending = sim.service(service).active.pending;
    assert_eq!(pending.len(), 1, "{pending:?}");
    pending[0].reason.clone()
}

#[test]
fn processes_run_only_where_all_labels_are() {
    let mut sim = cluster(&["zone=a gpu=l4", "zone=a", "zone=b gpu=l4", "zone=a gpu=l4"]);
    sim.serve(placed("train", 4, on("zone=a gpu=l4")));
    assert_eq!(sim.spread("train"), [2, 0, 0, 2]);
}

#[test]
fn what_does_not_fit_says_which_rule_and_which_workers() {
    let mut sim = cluster(&["zone=a", "zone=b"]);
    sim.deploy(placed("train", 1, on("zone=c")));
    sim.run(Span::secs(1));
    assert_eq!(
        reason(&sim, "train"),
        "`placement.labels`: no worker has zone=c (w1: zone=a, w2: zone=b)"
    );
    sim.deploy(config("db", 2));
    sim.run(Span::secs(1));
    sim.deploy(placed("web", 1, apart("db")));
    sim.run(Span::secs(1));
    assert_eq!(
        reason(&sim, "web"),
        "`placement.apart_from`: every worker that fits otherwise has a process of db (w1, w2)"
    );
    sim.deploy(placed("side", 1, with("cache")));
    sim.run(Span::secs(1));
    assert_eq!(
        reason(&sim, "side"),
        "`placement.with`: service cache is not configured, deploy it"
    );
    let greedy = ServiceConfig {
        cpus_reserved: Some(3.5),
        ..config("greedy", 3)
    };
    sim.deploy(greedy);
    sim.run(Span::secs(1));
    assert_eq!(sim.spread("greedy"), [1, 1]);
    assert_eq!(
        reason(&sim, "greedy"),
        "`cpus_reserved`: no worker has 3.5 CPUs left to reserve (w1: 0.5 free of 4, w2: 0.5 free of 4)"
    );
}

#[test]
fn processes_are_spread_over_the_values_of_a_label() {
    let mut sim = cluster(&["zone=a", "zone=a", "zone=a", "zone=b", ""]);
    sim.serve(placed("web", 6, spread()));
    let counts = sim.spread("web");
    assert_eq!(counts[..3].iter().sum::<usize>(), 2, "{counts:?}");
    assert_eq!(counts[3..], [2, 2]);
}

#[test]
fn a_lost_zone_is_evened_out_when_it_is_back() {
    let mut sim = cluster(&["zone=a", "zone=a", "zone=b"]);
    sim.serve(placed("web", 4, spread()));
    assert_eq!(sim.spread("web"), [1, 1, 2]);
    sim.agent(3).cut_power();
    sim.until("all are in zone a", |sim| sim.spread("web") == [2, 2, 0]);
    sim.until_settled("web");
    sim.agent(3).power_on();
    sim.until("the zones are even", |sim| sim.spread("web") == [1, 1, 2]);
    sim.until_settled("web");
}

#[test]
fn a_worker_that_loses_its_label_loses_its_processes_one_by_one() {
    let mut sim = cluster(&["zone=a", "zone=a", "zone=b"]);
    sim.serve(placed("web", 4, on("zone=a")));
    let before = sim.ids("web");
    sim.reconfigure(vec![
        labelled(1, "zone=a"),
        labelled(2, "zone=b"),
        labelled(3, "zone=a"),
    ]);
    sim.until_settled("web");
    assert_eq!(sim.spread("web"), [2, 0, 2]);
    let kept = sim.ids("web").into_iter().filter(|id| before.contains(id));
    assert_eq!(kept.count(), 2, "those that still fit stay");
}

#[test]
fn what_does_not_fit_any_more_runs_on_while_there_is_no_other_place() {
    let mut sim = cluster(&["zone=a", "zone=b"]);
    sim.serve(placed("web", 1, on("zone=a")));
    sim.reconfigure(vec![labelled(1, "zone=c"), labelled(2, "zone=b")]);
    sim.run(Span::secs(20));
    assert_eq!(sim.routed("web").len(), 1);
    assert!(reason(&sim, "web").contains("no worker has zone=a"));
    sim.reconfigure(vec![labelled(1, "zone=c"), labelled(2, "zone=a")]);
    sim.until("they have moved", |sim| sim.spread("web") == [0, 1]);
    sim.until_settled("web");
}

#[test]
fn a_change_of_placement_moves_only_what_no_longer_fits() {
    let mut sim = cluster(&["zone=a", "zone=b", "zone=a"]);
    sim.serve(config("web", 3));
    let before = sim.ids("web");
    sim.deploy(placed("web", 3, on("zone=a")));
    sim.until_settled("web");
    let after = sim.ids("web");
    assert_eq!(sim.spread("web").iter().sum::<usize>(), 3);
    assert_eq!(sim.spread("web")[1], 0);
    assert_eq!(before.iter().filter(|id| after.contains(id)).count(), 2);
}

#[test]
fn one_is_on_each_worker_and_on_those_that_come_later() {
    let mut sim = cluster(&["", ""]);
    sim.serve(everywhere());
    assert_eq!(sim.spread("logs"), [1, 1]);
    sim.reconfigure(vec![labelled(1, ""), labelled(2, ""), labelled(3, "")]);
    sim.until("the third has one", |sim| sim.spread("logs") == [1, 1, 1]);
    sim.until_settled("logs");
    sim.agent(2).cut_power();
    sim.until("nothing replaces a lost one", |sim| {
        sim.spread("logs") == [1, 0, 1]
    });
    sim.run(Span::secs(5));
    assert_eq!(sim.service("logs").wanted(), 2);
    assert_eq!(sim.service("logs").active.pending, []);
    sim.agent(2).power_on();
    sim.until("it is back", |sim| sim.spread("logs") == [1, 1, 1]);
    sim.until_settled("logs");
}

#[test]
fn an_update_of_one_everywhere_leaves_no_worker_without() {
    let mut sim = cluster(&["", "", "", ""]);
    sim.serve(everywhere());
    sim.deploy_image(everywhere(), 2);
    for _ in 0..100 {
        sim.run(Span::millis(100));
        let view = sim.service("logs");
        for worker in sim.workers.clone() {
            let mut own = view.active.processes.iter();
            let serves = own.any(|it| it.node == worker.name && it.routed);
            assert!(serves || view.active.pending.is_empty(), "{view:#?}");
        }
    }
    sim.until_settled("logs");
    assert_eq!(sim.spread("logs"), [1, 1, 1, 1]);
}

#[test]
fn a_worker_without_room_for_one_everywhere_is_named() {
    let mut sim = cluster(&["", ""]);
    sim.agent(2).metrics.memory_reservable = Bytes::mib(100);
    sim.run(Span::secs(2));
    sim.deploy(everywhere());
    sim.run(Span::secs(2));
    assert_eq!(sim.spread("logs"), [1, 0]);
    assert_eq!(
        reason(&sim, "logs"),
        "no worker has 256 MiB of memory left to reserve (w2: 100 MiB free of 100 MiB)"
    );
}

#[test]
fn scaled_services_become_ones_everywhere_and_back() {
    let mut sim = cluster(&["", "", ""]);
    sim.serve(config("logs", 5));
    sim.deploy(everywhere());
    sim.until("one on each", |sim| sim.spread("logs") == [1, 1, 1]);
    sim.until_settled("logs");
    sim.serve(config("logs", 5));
    assert_eq!(sim.spread("logs").iter().sum::<usize>(), 5);
}

#[test]
fn a_process_follows_the_one_that_it_is_with() {
    let mut sim = cluster(&["", "", ""]);
    sim.serve(config("db", 1));
    sim.serve(placed("side", 2, with("db")));
    assert_eq!(sim.spread("side"), [2, 0, 0]);
    sim.agent(1).cut_power();
    sim.until("both are elsewhere", |sim| {
        let (db, side) = (sim.spread("db"), sim.spread("side"));
        db[0] == 0 && side.iter().zip(&db).all(|(side, db)| *side == 2 * *db)
    });
    sim.until_settled("side");
}

/// The worker that has both is fuller than the others, which a move of one of them cannot change: the other follows.
#[test]
fn a_process_and_the_one_that_it_is_with_come_to_rest() {
    let mut sim = cluster(&["", "", "", ""]);
    sim.serve(config("db", 1));
    sim.serve(placed("side", 1, with("db")));
    sim.run(Span::secs(60));
    let (db, side) = (sim.ids("db"), sim.ids("side"));
    sim.run(Span::secs(600));
    assert_eq!((sim.ids("db"), sim.ids("side")), (db, side));
}

#[test]
fn services_that_are_apart_are_never_on_one_worker() {
    let mut sim = cluster(&["", "", ""]);
    sim.serve(config("a", 1));
    sim.serve(placed("b", 2, apart("a")));
    assert_eq!(sim.spread("b"), [0, 1, 1]);
    // Also when the one that does not say so grows.
    sim.deploy(config("a", 3));
    sim.until_settled("a");
    assert_eq!(sim.spread("a"), [3, 0, 0]);
}

#[test]
fn of_two_that_become_apart_the_one_that_says_so_moves() {
    let mut sim = cluster(&["", ""]);
    sim.serve(config("a", 1));
    sim.serve(with_memory("pad", 1, 64));
    sim.serve(config("b", 1));
    assert_eq!((sim.spread("a"), sim.spread("b")), (vec![1, 0], vec![1, 0]));
    let stays = sim.ids("b");
    sim.deploy(placed("a", 1, apart("b")));
    sim.until("a has moved", |sim| sim.spread("a") == [0, 1]);
    sim.until_settled("a");
    assert_eq!(sim.ids("b"), stays);
}

#[test]
fn cpus_are_reserved_until_what_had_them_is_gone() {
    let mut sim = cluster(&["", ""]);
    let greedy = |concurrency, cpus| ServiceConfig {
        cpus_reserved: Some(cpus),
        ..config("greedy", concurrency)
    };
    sim.serve(greedy(2, 3.0));
    sim.deploy(ServiceConfig {
        cpus_reserved: Some(2.0),
        ..config("other", 1)
    });
    sim.run(Span::secs(1));
    assert_eq!(sim.spread("other"), [0, 0]);
    let ids = sim.ids("greedy");
    sim.deploy(greedy(2, 2.0));
    sim.until_settled("other");
    assert_eq!(sim.ids("greedy"), ids, "no process is replaced for it");
}

#[test]
fn a_slot_waits_where_its_volume_is_and_its_rule_does_not_hold() {
    let mut sim = cluster(&["zone=a", "zone=b"]);
    let db = ServiceConfig {
        placement: on("zone=a"),
        ..with_volumes("db", 1, &[("data", 64)])
    };
    sim.serve(db.clone());
    assert_eq!(sim.spread("db"), [1, 0]);
    let other = ServiceConfig {
        placement: on("zone=b"),
        ..db.clone()
    };
    let obstacle = sim.cluster().placement_obstacle(&other, &Platforms::new());
    let obstacle = obstacle.unwrap();
    assert!(
        obstacle.starts_with(
            "placement.labels: volume db/data/1 is on w1, where it could not be used (w1: zone=a)"
        ),
        "{obstacle}"
    );
    // A change of the labels leaves it where its data are, as long as it runs.
    sim.reconfigure(vec![labelled(1, "zone=c"), labelled(2, "zone=a")]);
    sim.run(Span::secs(10));
    assert_eq!(sim.routed("db").len(), 1);
    assert_eq!(sim.spread("db"), [1, 0]);
}

#[test]
fn what_can_never_be_is_said_at_once() {
    let mut sim = cluster(&["zone=a", "zone=b"]);
    sim.serve(placed("db", 1, on("zone=a")));
    sim.serve(placed("web", 1, with("db")));
    let never = |config: ServiceConfig| {
        let obstacle = sim.cluster().placement_obstacle(&config, &Platforms::new());
        obstacle.unwrap_or_default()
    };
    for (config, part) in [
        (
            placed("x", 1, on("zone=c")),
            "placement.labels: no worker has zone=c (w1: zone=a, w2: zone=b)",
        ),
        (
            placed(
                "x",
                1,
                Placement {
                    spread: Some("rack".parse().unwrap()),
                    ..Placement::default()
                },
            ),
            "placement.spread: no worker of the topology has the label rack",
        ),
        (
            placed("x", 1, with("nobody")),
            "placement.with: there is no service nobody",
        ),
        (
            placed("x", 1, apart("nobody")),
            "placement.apart_from: there is no service nobody",
        ),
        (
            placed(
                "x",
                1,
                Placement {
                    labels: labels("zone=b"),
                    ..with("web")
                },
            ),
            "placement.with: no worker can have both a process of x and one of db",
        ),
        (
            placed("db", 1, with("web")),
            "placement.with: db is to be with itself in the end (db with web with db)",
        ),
        (
            placed("db", 1, apart("web")),
            "placement.apart_from: db and web are to be apart",
        ),
        (
            placed(
                "x",
                1,
                Placement {
                    apart_from: vec![name("db")],
                    ..with("web")
                },
            ),
            "placement.apart_from: db and x are to be apart",
        ),
    ] {
        let text = never(config);
        assert!(text.starts_with(part), "{text}");
    }
    assert_eq!(never(placed("x", 3, with("web"))), "");
}

#[test]
fn each_worker_gets_the_image_of_its_architecture() {
    let mut sim = cluster(&["", "", ""]);
    sim.agent(2).architecture = "arm64".to_owned();
    sim.agent(3).architecture = "riscv64".to_owned();
    let (amd64, arm64) = (image(1), image(2));
    sim.agent(1).foreign_images.insert(arm64.clone());
    sim.agent(2).foreign_images.insert(amd64.clone());
    sim.agent(3)
        .foreign_images
        .extend([amd64.clone(), arm64.clone()]);
    sim.run(Span::secs(2));
    let both = Platforms::from([
        ("amd64".to_owned(), amd64.clone()),
        ("arm64".to_owned(), arm64.clone()),
    ]);
    sim.deploy_platforms(config("web", 4), 1, both);
    sim.until_settled("web");
    assert_eq!(sim.spread("web"), [2, 2, 0]);
    let used = sim.cluster().images_in_use();
    assert!(used.contains(&amd64) && used.contains(&arm64));
    let only = Platforms::from([("s390x".to_owned(), image(3))]);
    let obstacle = sim.cluster().placement_obstacle(&config("x", 1), &only);
    assert!(obstacle.unwrap().starts_with(
        "image: its image is for s390x, and no worker that fits otherwise runs that (w1: amd64, w2: arm64, w3: riscv64)"
    ));
    sim.deploy_platforms(config("x", 1), 3, only);
    sim.run(Span::secs(2));
    let pending = sim.service("x").active.pending;
    assert!(matches!(
        pending[0].cause,
        Some(PendingReason::NoArchitecture { .. })
    ));
}
