use tucano_api::{
    agent::ProcessState,
    ids::Revision,
    service::{Mount, ServiceConfig},
    units::{Bytes, Span},
};
use tucano_planner::{Event, Settings};

use tucano_simulator::{Options, Sim, config, image, name, node, settings, with_memory};

fn revision(sim: &Sim) -> Revision {
    sim.service("hello").configured.revision
}

#[test]
fn the_same_configuration_again_changes_nothing() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 3));
    let (config, image) = (config("hello", 3), image(1));
    let config = Box::new(config);
    let actions = sim.event(Event::ServiceConfigured {
        config,
        image,
        platforms: Default::default(),
    });
    assert_eq!(actions, []);
    assert_eq!(revision(&sim), Revision(1));
}

#[test]
fn a_change_that_does_not_concern_processes_is_a_revision_and_replaces_none() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 3));
    let before = sim.ids("hello");
    sim.serve(ServiceConfig {
        hosts: vec!["www.example.org".into()],
        ..config("hello", 3)
    });
    assert_eq!(revision(&sim), Revision(2));
    assert_eq!(sim.ids("hello"), before);
}

#[test]
fn concurrency_is_not_a_revision() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    sim.serve(with_memory("hello", 1, 64));
    for concurrency in [2, 5, 3] {
        sim.serve(with_memory("hello", concurrency, 64));
    }
    assert_eq!(revision(&sim), Revision(2));
    let shown = sim.cluster().revisions(&name("hello"));
    let shown: Vec<_> = shown
        .iter()
        .map(|it| (it.revision.0, it.config.memory, it.config.concurrency))
        .collect();
    assert_eq!(shown, [(1, Bytes::mib(256), 3), (2, Bytes::mib(64), 3)]);
    let before = sim.ids("hello");
    sim.restart_controller();
    sim.run(Span::secs(5));
    assert_eq!(sim.ids("hello"), before);
}

#[test]
fn a_process_keeps_the_configuration_of_the_revision_it_was_started_from() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    sim.serve(ServiceConfig {
        hosts: vec!["www.example.org".into()],
        ..config("hello", 2)
    });
    let set = sim.cluster().desired_set(&node(1)).unwrap();
    let of: Vec<(Revision, usize)> = set
        .processes
        .iter()
        .map(|p| (p.revision, p.config.hosts.len()))
        .collect();
    assert_eq!(of, [(Revision(1), 0), (Revision(2), 1)]);
}

#[test]
fn only_the_last_revisions_are_kept_and_those_that_a_process_runs() {
    let mut sim = Sim::with(Options {
        settings: Settings {
            revisions_kept: 2,
            ..settings()
        },
        ..Options::default()
    });
    for concurrency in 1..=5 {
        sim.serve(ServiceConfig {
            hosts: vec![format!("h{concurrency}.example.org")],
            ..config("hello", concurrency)
        });
    }
    let kept = |sim: &Sim| -> Vec<u64> {
        let service = &sim.disk.services[0];
        service
            .revisions
            .iter()
            .map(|record| record.revision.0)
            .collect()
    };
    assert_eq!(kept(&sim), [1, 2, 3, 4, 5], "each has a process");
    assert_eq!(sim.cluster().revisions(&name("other")), []);
    sim.deploy_image(config("hello", 5), 2);
    sim.until_settled("hello");
    assert_eq!(kept(&sim), [5, 6]);
    assert_eq!(sim.cluster().images_in_use(), [image(1), image(2)].into());
    sim.deploy_image(with_memory("hello", 5, 64), 2);
    sim.until_settled("hello");
    assert_eq!(sim.cluster().images_in_use(), [image(2)].into());
}

#[test]
fn another_digest_of_a_mounted_image_is_a_revision_and_kept_ones_are_in_use() {
    let mut sim = Sim::with(Options {
        settings: Settings {
            revisions_kept: 2,
            ..settings()
        },
        ..Options::default()
    });
    let mounting = |digest: u8| ServiceConfig {
        mount: vec![Mount {
            path: "/models".into(),
            image: Some("models/llm:1".into()),
            digest: Some(image(digest)),
            ..Mount::default()
        }],
        ..config("hello", 2)
    };
    sim.serve(mounting(2));
    let before = sim.ids("hello");
    sim.serve(mounting(2));
    assert_eq!(
        (revision(&sim), sim.ids("hello")),
        (Revision(1), before.clone())
    );
    sim.serve(mounting(3));
    assert_eq!(revision(&sim), Revision(2));
    assert!(sim.ids("hello").iter().all(|id| !before.contains(id)));
    let in_use = |sim: &Sim| sim.cluster().images_in_use();
    assert_eq!(in_use(&sim), [image(1), image(2), image(3)].into());
    // The first revision is dropped with its image.
    sim.serve(config("hello", 2));
    assert_eq!(in_use(&sim), [image(1), image(3)].into());
    sim.remove("hello");
    assert_eq!(in_use(&sim), [].into());
}

#[test]
fn removal_withdraws_routes_and_processes_at_once_and_leaves_nothing() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 5));
    sim.remove("hello");
    assert_eq!(sim.published, Some(vec![]));
    assert_eq!(sim.cluster().service(&name("hello")), None);
    assert_eq!(sim.disk.processes, []);
    assert_eq!(sim.disk.services, []);
    assert_eq!(sim.cluster().images_in_use(), [].into());
    sim.run(Span::secs(2));
    assert!(sim.agents.values().all(|agent| agent.containers.is_empty()));
}

#[test]
fn a_process_that_was_scaled_away_is_shown_as_stopping_until_it_is_gone() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 2));
    sim.deploy(config("hello", 1));
    sim.until("it is stopping", |sim| {
        let stopping = sim.service("hello").active.stopping;
        stopping.len() == 1 && stopping[0].report.state == ProcessState::Stopping
    });
    sim.until("it is gone", |sim| {
        sim.service("hello").active.stopping.is_empty()
    });
    assert_eq!(sim.agents[&node(1)].containers.len(), 1);
}

#[test]
fn a_removed_service_exists_until_no_agent_reports_a_process_of_it() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    sim.serve(config("other", 1));
    sim.remove("hello");
    let left = sim.cluster().existing(&name("hello"));
    assert_eq!(left.len(), 2);
    assert_eq!(
        sim.cluster().node_of(&left[0].1),
        Some(&left[0].0),
        "its logs can be read"
    );
    sim.until("it is gone", |sim| {
        sim.cluster().existing(&name("hello")).is_empty()
    });
    assert!(
        sim.agents
            .values()
            .all(|a| a.containers.keys().all(|id| id.as_str() == "other-3"))
    );
}

#[test]
fn a_lost_worker_does_not_keep_a_removed_service_in_existence() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    sim.network.cut_off.insert(node(2));
    sim.remove("hello");
    sim.until("it is gone", |sim| {
        sim.cluster().existing(&name("hello")).is_empty()
    });
    assert_eq!(
        sim.agents[&node(2)].containers.len(),
        1,
        "the controller cannot know"
    );
}

#[test]
fn a_process_that_is_removed_before_its_first_report_exists() {
    let mut sim = Sim::new(1);
    sim.deploy(config("hello", 1));
    sim.remove("hello");
    assert_eq!(sim.cluster().existing(&name("hello")).len(), 1);
    sim.until("it is gone", |sim| {
        sim.cluster().existing(&name("hello")).is_empty()
    });
}

#[test]
fn process_numbers_are_not_reused_after_a_removal() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 2));
    sim.remove("hello");
    sim.serve(config("hello", 1));
    assert_eq!(sim.ids("hello")[0].as_str(), "hello-3");
    assert_eq!(revision(&sim), Revision(1));
}

#[test]
fn removing_an_unknown_service_changes_nothing() {
    let mut sim = Sim::new(1);
    let name = name("nothing");
    assert_eq!(
        sim.event(Event::ServiceRemoved {
            name,
            volumes: false
        }),
        []
    );
}

#[test]
fn scaling_down_takes_from_the_workers_with_the_most_the_newest_first() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 7));
    sim.serve(config("hello", 4));
    let left: Vec<String> = sim.ids("hello").iter().map(ToString::to_string).collect();
    assert_eq!(sim.spread("hello").iter().max(), Some(&2));
    assert!(
        left.contains(&"hello-1".to_owned()) && !left.contains(&"hello-7".to_owned()),
        "{left:?}"
    );
    sim.serve(config("hello", 2));
    assert_eq!(sim.spread("hello").iter().max(), Some(&1));
    sim.serve(config("hello", 7));
    assert_eq!(sim.spread("hello").iter().max(), Some(&3));
}

#[test]
fn scaling_down_takes_unhealthy_processes_first() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    sim.workloads.unresponsive.insert(image(1));
    sim.deploy(config("hello", 4));
    sim.run(Span::secs(2));
    assert_eq!(sim.routed("hello").len(), 2);
    sim.deploy(config("hello", 2));
    assert_eq!(sim.routed("hello").len(), 2);
    assert_eq!(sim.ids("hello").len(), 2, "unhealthy ones need not drain");
}

#[test]
fn a_process_that_is_scaled_away_drains_before_it_is_stopped() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 2));
    sim.deploy(config("hello", 1));
    assert_eq!(sim.routed("hello").len(), 1);
    let drains: Vec<bool> = sim.published.as_ref().unwrap()[0]
        .endpoints
        .iter()
        .map(|e| e.draining)
        .collect();
    assert_eq!(drains, [false, true]);
    assert_eq!(
        sim.cluster().desired_set(&node(1)).unwrap().processes.len(),
        2
    );
    sim.run(Span::millis(900));
    assert_eq!(sim.ids("hello").len(), 2, "the drain time has not passed");
    sim.run(Span::millis(200));
    assert_eq!(sim.ids("hello").len(), 1);
    assert_eq!(sim.published.as_ref().unwrap()[0].endpoints.len(), 1);
}

#[test]
fn two_services_with_one_host_and_path_conflict() {
    let mut sim = Sim::new(1);
    let with = |service: &str, hosts: &[&str], prefix: Option<&str>| ServiceConfig {
        hosts: hosts.iter().map(|host| host.to_string()).collect(),
        path_prefix: prefix.map(str::to_owned),
        ..config(service, 1)
    };
    sim.serve(with("shop", &["www.example.org"], None));
    let conflict = |candidate: ServiceConfig| sim.cluster().conflict(&candidate);
    let message = conflict(with("other", &["www.example.org"], Some("/"))).unwrap();
    assert!(
        message.contains("\"www.example.org\"") && message.contains("service shop"),
        "{message}"
    );
    assert!(
        conflict(with("other", &["shop.localhost"], None)).is_some(),
        "the derived one too"
    );
    assert_eq!(
        conflict(with("other", &["www.example.org"], Some("/api"))),
        None
    );
    assert_eq!(conflict(with("other", &["example.org"], None)), None);
    assert_eq!(
        conflict(with("shop", &["www.example.org", "b.org"], None)),
        None,
        "itself"
    );
}
