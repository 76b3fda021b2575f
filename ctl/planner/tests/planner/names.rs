//! The services that processes find by name: addresses, what nodes are told, and first starts after others.

use std::{collections::BTreeMap, net::Ipv4Addr};

use tucano_api::{ids::ProcessId, service::ServiceConfig, units::Span};
use tucano_planner::{Action, Configured, Event, Settings};

use tucano_simulator::{
    Options, Sim, config, image, name, new_disk, node, settings, with_volumes, workers,
};

fn needing(service: &str, needs: &[&str]) -> ServiceConfig {
    ServiceConfig {
        needs: needs.iter().map(|it| name(it)).collect(),
        ..config(service, 1)
    }
}

fn starting_after(service: &str, others: &[&str]) -> ServiceConfig {
    ServiceConfig {
        start_after: others.iter().map(|it| name(it)).collect(),
        ..config(service, 2)
    }
}

fn addresses(sim: &Sim) -> BTreeMap<String, Vec<Ipv4Addr>> {
    let services = sim.disk.services.iter();
    let all = services.map(|record| {
        let slots = record.slot_addresses.values().copied();
        let all = record.address.into_iter().chain(slots).collect();
        (record.name.to_string(), all)
    });
    all.collect()
}

#[test]
fn addresses_survive_a_restart_and_an_adoption_by_another_controller() {
    let mut sim = Sim::new(2);
    sim.serve(config("web", 2));
    sim.serve(with_volumes("db", 2, &[("data", 64)]));
    let before = addresses(&sim);
    assert_eq!((before["web"].len(), before["db"].len()), (1, 3));
    sim.restart_controller();
    sim.run(Span::secs(5));
    assert_eq!(addresses(&sim), before);
    sim.replace_disk(new_disk(2));
    sim.run(Span::secs(5));
    sim.event(Event::Adopt);
    sim.until_settled("web");
    sim.until_settled("db");
    assert_eq!(addresses(&sim), before);
}

#[test]
fn services_of_an_earlier_version_get_addresses_which_their_agents_remember() {
    let mut sim = Sim::new(1);
    sim.serve(config("web", 1));
    let mut disk = sim.disk.clone();
    disk.services[0].address = None;
    disk.counters.last_address = None;
    sim.replace_disk(disk);
    sim.run(Span::secs(3));
    let address = sim.disk.services[0].address.unwrap();
    let held = &sim.agents[&node(1)].desired.processes[0];
    assert_eq!(held.address.map(|it| it.service), Some(address));
    assert_eq!(sim.ids("web").len(), 1);
}

#[test]
fn an_address_is_given_again_only_after_every_other_one() {
    let mut sim = Sim::with(Options {
        settings: Settings {
            service_subnet: "10.9.0.0/28".parse().unwrap(),
            ..settings()
        },
        ..Options::default()
    });
    sim.deploy(config("first", 1));
    let first = addresses(&sim)["first"][0];
    sim.remove("first");
    for number in 0..13 {
        let service = format!("s{number}");
        sim.deploy(config(&service, 1));
        assert_ne!(addresses(&sim)[&service], [first]);
    }
    let no_more = with_volumes("db", 1, &[("data", 64)]);
    let refused = sim.cluster().names_obstacle(&no_more).unwrap();
    assert!(refused.contains("10.9.0.0/28 has 1 left"), "{refused}");
    sim.deploy(config("last", 1));
    assert_eq!(addresses(&sim)["last"], [first]);
}

#[test]
fn nodes_are_told_whether_the_nearest_process_is_wanted() {
    let mut sim = Sim::new(2);
    sim.serve(config("db", 2));
    let pids = sim.ids("db");
    let is_nearest = |sim: &Sim| {
        let names = sim.cluster().names();
        names.services[&name("db")].as_ref().unwrap().nearest
    };
    assert!(!is_nearest(&sim));
    sim.serve(ServiceConfig {
        nearest: true,
        ..config("db", 2)
    });
    assert!(is_nearest(&sim));
    assert_eq!(sim.ids("db"), pids, "nothing is replaced");
}

#[test]
fn a_node_is_told_of_the_services_that_its_processes_need_and_where_they_answer() {
    let mut sim = Sim::new(3);
    sim.serve(config("db", 2));
    sim.serve(config("cache", 1));
    sim.serve(needing("web", &["db"]));
    let names = sim.cluster().names();
    let web = sim.service("web").active.processes[0].node.clone();
    assert_eq!(names.needs.len(), 1);
    assert_eq!(names.needs[&web], [name("db")].into());
    let db = names.services[&name("db")].clone().unwrap();
    let answering: Vec<_> = db.endpoints.iter().map(|it| it.process.clone()).collect();
    assert_eq!(answering, sim.ids("db"));

    // What drains gets no new connections, and nothing else is published.
    let mut smaller = config("db", 1);
    smaller.hosts = vec!["db.example".to_owned()];
    let actions = sim.event(Event::ServiceConfigured {
        config: Box::new(smaller),
        image: image(1),
        platforms: Default::default(),
    });
    let told = actions.iter().find_map(|action| match action {
        Action::Names(update) => Some(update),
        _ => None,
    });
    let told = told.unwrap();
    assert_eq!(told.services.len(), 1);
    assert_eq!(
        told.services[&name("db")].as_ref().unwrap().endpoints.len(),
        1
    );

    sim.deploy(config("web", 1));
    sim.until("nothing is needed", |sim| {
        sim.cluster().names().needs.is_empty()
    });
    sim.until_settled("web");
}

#[test]
fn a_process_starts_for_the_first_time_after_the_services_that_it_waits_for() {
    let mut sim = Sim::new(2);
    sim.workloads.unresponsive.insert(image(1));
    sim.deploy_image(config("db", 1), 1);
    sim.deploy_image(starting_after("web", &["db"]), 2);
    sim.run(Span::secs(5));
    let pending = &sim.service("web").active.pending[0];
    assert!(
        pending.reason.contains("a healthy process of db"),
        "{}",
        pending.reason
    );
    sim.restart_controller();
    sim.run(Span::secs(3));
    assert_eq!(sim.ids("web"), []);
    sim.workloads.unresponsive.clear();
    sim.until_settled("web");
    // Only the first start waits.
    sim.remove("db");
    sim.run(Span::secs(3));
    sim.agents
        .values_mut()
        .for_each(tucano_simulator::agent::Agent::cut_power);
    sim.run(Span::secs(1));
    sim.agents
        .values_mut()
        .for_each(tucano_simulator::agent::Agent::power_on);
    sim.until_settled("web");
}

#[test]
fn services_that_are_needed_are_known_and_stay() {
    let mut sim = Sim::with(Options {
        workers: workers(2),
        ..Options::default()
    });
    let unknown = sim
        .cluster()
        .unknown_services(&needing("web", &["db", "web"]));
    let unknown = unknown.unwrap();
    assert!(
        unknown.contains("needs of web: there is no service db"),
        "{unknown}"
    );
    sim.serve(config("db", 1));
    assert_eq!(
        sim.cluster().unknown_services(&needing("web", &["db"])),
        None
    );
    sim.serve(needing("web", &["db"]));
    let refused = sim.cluster().removal_obstacle(&name("db")).unwrap();
    assert!(refused.contains("needed by web"), "{refused}");
    assert_eq!(sim.cluster().removal_obstacle(&name("web")), None);
    sim.deploy(starting_after("b", &["web"]));
    sim.deploy(starting_after("a", &["b"]));
    let circle = sim.cluster().names_obstacle(&starting_after("web", &["a"]));
    assert!(circle.unwrap().contains("wait for itself"));
}

#[test]
fn services_that_need_each_other_are_configured_in_one_step() {
    let mut sim = Sim::new(2);
    let services: Vec<Configured> = [
        needing("web", &["api", "db"]),
        needing("api", &["db", "web"]),
        needing("db", &["web"]),
    ]
    .into_iter()
    .map(|config| Configured {
        config: Box::new(config),
        image: image(1),
        platforms: Default::default(),
    })
    .collect();
    let web = &services[0].config;
    assert!(sim.cluster().unknown_services(web).is_some());
    let together = sim.cluster().with_configured(&services);
    let unknown = services
        .iter()
        .find_map(|it| together.unknown_services(&it.config));
    assert_eq!(unknown, None);
    assert!(sim.cluster().services().is_empty(), "nothing has changed");
    sim.event(Event::ServicesConfigured { services });
    for service in ["web", "api", "db"] {
        sim.until_settled(service);
    }
    sim.restart_controller();
    sim.run(Span::secs(3));
    assert_eq!(sim.cluster().names().services.len(), 3);
}

/// The processes of `db` that drain, once one does.
fn draining_of_db(sim: &mut Sim) -> Vec<ProcessId> {
    let draining = |sim: &Sim| -> Vec<ProcessId> {
        let all = sim.service("db").active.processes.into_iter();
        all.filter(|it| it.draining)
            .map(|it| it.report.id)
            .collect()
    };
    sim.until("one drains", |sim| !draining(sim).is_empty());
    draining(sim)
}

#[test]
fn a_process_that_others_need_drains_for_its_whole_time_and_is_told_as_leaving() {
    let mut sim = Sim::new(2);
    sim.serve(config("db", 2));
    sim.serve(needing("web", &["db"]));
    sim.deploy_image(config("db", 2), 2);
    let draining = draining_of_db(&mut sim);
    // No balancer has a request for it. Of connections between services, none can know.
    sim.event(Event::Drained {
        processes: draining.clone(),
    });
    let named = sim.cluster().names().services[&name("db")].clone().unwrap();
    let leaving: Vec<_> = named.leaving.iter().map(|it| it.process.clone()).collect();
    assert!(draining.iter().all(|it| leaving.contains(it)), "{named:?}");
    assert!(
        named
            .endpoints
            .iter()
            .all(|it| !draining.contains(&it.process))
    );
    sim.until_settled("db");
    let named = sim.cluster().names().services[&name("db")].clone().unwrap();
    assert_eq!((named.endpoints.len(), named.leaving.len()), (2, 0));
}

#[test]
fn a_process_that_nobody_needs_is_removed_as_soon_as_it_is_drained() {
    let mut sim = Sim::new(2);
    sim.serve(config("db", 2));
    sim.deploy_image(config("db", 2), 2);
    let draining = draining_of_db(&mut sim);
    sim.event(Event::Drained {
        processes: draining.clone(),
    });
    assert!(draining.iter().all(|id| !sim.ids("db").contains(id)));
}
