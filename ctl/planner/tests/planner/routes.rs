use tucano_api::{
    agent::{Pressure, ProcessState},
    routes::ServiceRoute,
    service::ServiceConfig,
    units::Span,
};
use tucano_planner::Event;

use tucano_simulator::{Options, Sim, config, image, node};

fn route(sim: &Sim) -> &ServiceRoute {
    &sim.published.as_ref().unwrap()[0]
}

#[test]
fn a_service_is_routed_by_its_own_host_and_those_configured_each_once_and_in_lower_case() {
    let mut sim = Sim::new(1);
    sim.serve(ServiceConfig {
        hosts: vec![
            "WWW.Example.org".into(),
            "hello.localhost".into(),
            "www.example.org".into(),
        ],
        path_prefix: Some("/api/".into()),
        ..config("hello", 1)
    });
    assert_eq!(route(&sim).hosts, ["hello.localhost", "www.example.org"]);
    assert_eq!(route(&sim).path_prefix.as_deref(), Some("/api"));
}

#[test]
fn a_service_without_a_healthy_process_is_in_the_table_without_endpoints() {
    let mut sim = Sim::new(1);
    sim.deploy(config("hello", 1));
    assert_eq!(route(&sim).endpoints, []);
    assert_eq!(route(&sim).hosts, ["hello.localhost"]);
}

#[test]
fn a_service_without_a_port_for_requests_has_no_hosts_and_takes_none_from_others() {
    let mut sim = Sim::new(1);
    let tcp = r#"{"a": 1, "b": {"port": 2, "protocol": "tcp"}}"#;
    for (name, ports) in [("queue", "{}"), ("db", tcp)] {
        sim.serve(ServiceConfig {
            port: None,
            ports: serde_json::from_str(ports).unwrap(),
            ..config(name, 1)
        });
    }
    sim.serve(ServiceConfig {
        hosts: vec!["queue.localhost".into(), "db.localhost".into()],
        ..config("web", 1)
    });
    let hosts = |name: &str| {
        let mut all = sim.published.as_ref().unwrap().iter();
        let route = all.find(|route| route.service.as_str() == name).unwrap();
        route.hosts.join(" ")
    };
    let all = ["queue", "db", "web"].map(hosts);
    assert_eq!(all, ["", "", "web.localhost queue.localhost db.localhost"]);
}

#[test]
fn an_endpoint_is_the_workers_address_and_the_forwarded_port() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    let endpoint = &route(&sim).endpoints[0];
    assert_eq!(endpoint.address.to_string(), "10.0.0.1:20001");
    assert_eq!((endpoint.weight, endpoint.draining), (100, false));
}

#[test]
fn a_process_gets_no_request_before_it_is_healthy_and_none_when_it_no_longer_is() {
    let mut sim = Sim::new(1);
    sim.workloads.unresponsive.insert(image(1));
    sim.deploy(config("hello", 1));
    sim.run(Span::secs(5));
    assert_eq!(sim.routed("hello"), []);
    sim.workloads.unresponsive.clear();
    sim.until_settled("hello");
    let id = sim.ids("hello")[0].clone();
    sim.agent(1).containers.get_mut(&id).unwrap().state = ProcessState::Unhealthy;
    sim.run(Span::millis(1200));
    assert_eq!(sim.routed("hello"), []);
}

#[test]
fn a_healthy_process_without_a_port_is_not_routed() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    for port in [None, Some(0)] {
        let now = sim.now;
        let mut report = Box::new(sim.agent(1).report(now));
        report.processes[0].node_port = port;
        let node = node(1);
        sim.event(Event::NodeReported { node, report });
        assert_eq!(sim.routed("hello"), []);
    }
}

#[test]
fn a_loaded_worker_gets_fewer_requests_and_the_table_is_stable() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    let weight = |sim: &Sim| route(sim).endpoints[0].weight;
    sim.agent(1).metrics.cpu_used = 1.0;
    sim.run(Span::secs(30));
    assert_eq!(weight(&sim), 20);
    assert_eq!(route(&sim).endpoints[1].weight, 100);
    sim.agent(1).metrics.cpu_used = 0.0;
    sim.run(Span::secs(30));
    assert_eq!(weight(&sim), 100);
    let before = sim.published.clone();
    for tenth in 0..20 {
        sim.agent(1).metrics.cpu_used = if tenth % 2 == 0 { 0.05 } else { 0.2 };
        sim.run(Span::secs(1));
        assert_eq!(sim.published, before);
    }
}

#[test]
fn the_scarcest_resource_of_a_worker_is_its_load() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 3));
    sim.agent(1).metrics.load = [8.0, 0.0, 0.0];
    sim.agent(2).metrics.pressure = Some(Pressure {
        cpu: 0.0,
        memory: 0.0,
        io: 50.0,
    });
    sim.agent(3).metrics.load = [f64::NAN, 0.0, 0.0];
    sim.run(Span::secs(30));
    let weights: Vec<u32> = route(&sim).endpoints.iter().map(|e| e.weight).collect();
    assert_eq!(weights, [20, 60, 100]);
}

#[test]
fn every_service_has_a_route_ordered_by_name() {
    let mut sim = Sim::new(2);
    for service in ["c", "a", "b"] {
        sim.serve(config(service, 1));
    }
    let table = sim.published.as_ref().unwrap();
    let names: Vec<&str> = table.iter().map(|route| route.service.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn nothing_is_published_before_every_worker_had_a_lease_to_report() {
    let mut sim = Sim::unreported(Options::default());
    sim.agent(2).cut_power();
    sim.run(Span::millis(1900));
    assert_eq!(sim.published, None);
    sim.run(Span::millis(300));
    assert_eq!(sim.published, Some(vec![]));
}
