//! How long a process drains: until no balancer has a request in flight to it, and for its drain time at most.

use tucano_api::{
    service::ServiceConfig,
    units::{Span, Timestamp},
};
use tucano_planner::Settings;
use tucano_simulator::{Options, Sim, config, node, settings, workers};

const DRAIN: Span = Span::secs(30);

/// Two processes and balancers that the controller has known for long; their requests take `longest` at most.
fn served_by(balancers: usize, longest: Span) -> Sim {
    let mut sim = Sim::with(Options {
        workers: workers(2),
        settings: Settings {
            drain: DRAIN,
            ..settings()
        },
        ..Options::default()
    });
    sim.add_balancers(balancers);
    for balancer in &mut sim.balancers {
        balancer.longest = longest;
    }
    sim.serve(config("hello", 2));
    sim.run(Span::secs(10));
    sim
}

/// Scales the service down. How long its surplus process exists from then on.
fn drain_time(sim: &mut Sim, busy: Option<usize>) -> Span {
    let begun = sim.now;
    sim.deploy(config("hello", 1));
    if let Some(which) = busy {
        let records = &sim.disk.processes;
        let draining = records.iter().find(|it| it.draining_since.is_some());
        let process = draining.unwrap().id.clone();
        let end = begun.after(Span::secs(7));
        sim.balancers[which].requests.push((process, end));
    }
    sim.until("the process is gone", |sim| sim.ids("hello").len() == 1);
    Span::millis(sim.now.0 - begun.0)
}

#[test]
fn a_process_without_requests_is_stopped_at_once() {
    let mut sim = served_by(2, Span::default());
    assert!(drain_time(&mut sim, None) < Span::secs(2));
}

#[test]
fn a_process_is_kept_until_its_last_request_has_ended() {
    let mut sim = served_by(2, Span::default());
    let took = drain_time(&mut sim, Some(1));
    assert!((Span::secs(7)..Span::secs(9)).contains(&took), "{took}");
}

#[test]
fn a_process_with_an_endless_request_is_stopped_after_the_drain_time() {
    let mut sim = served_by(1, Span::default());
    sim.deploy(config("hello", 1));
    let records = &sim.disk.processes;
    let draining = records.iter().find(|it| it.draining_since.is_some());
    let process = draining.unwrap().id.clone();
    sim.balancers[0]
        .requests
        .push((process, Timestamp(u64::MAX)));
    sim.run(Span::millis(29_900));
    assert_eq!(sim.ids("hello").len(), 2);
    sim.run(Span::millis(200));
    assert_eq!(sim.ids("hello").len(), 1);
}

#[test]
fn without_a_confirmation_of_every_balancer_the_drain_time_decides() {
    type Prepare = fn(&mut Sim);
    let cases: [(&str, usize, Prepare); 5] = [
        ("no balancer", 0, |_| {}),
        ("one is cut off", 2, |sim| {
            sim.balancers[1].connected = false;
        }),
        ("one was killed", 1, |sim| sim.restart_balancer(0)),
        ("one is of an earlier version", 2, |sim| {
            sim.balancers[1].is_old = true;
        }),
        ("the controller has just started", 2, |sim| {
            sim.restart_controller();
            // Before its balancers can have returned.
            sim.balancers[1].connected = false;
            sim.balancers[0].longest = DRAIN;
        }),
    ];
    for (what, balancers, prepare) in cases {
        let mut sim = served_by(balancers, Span::default());
        prepare(&mut sim);
        let took = drain_time(&mut sim, None);
        assert!(
            (DRAIN..Span::secs(32)).contains(&took) || what.contains("started"),
            "{what}: {took}"
        );
        assert!(took > Span::secs(4), "{what}: {took}");
    }
}

#[test]
fn a_balancer_that_is_forgotten_no_longer_prolongs_drains() {
    let mut sim = served_by(2, Span::default());
    sim.balancers[1].connected = false;
    sim.run(Span::secs(61));
    assert!(drain_time(&mut sim, None) < Span::secs(2));
}

#[test]
fn a_services_own_drain_time_takes_precedence() {
    let mut sim = served_by(0, Span::default());
    let with_drain = |concurrency, drain| ServiceConfig {
        drain: Some(Span::secs(drain)),
        ..config("hello", concurrency)
    };
    let before = sim.ids("hello");
    sim.deploy(with_drain(2, 60));
    assert_eq!(sim.ids("hello"), before, "processes are not replaced");
    sim.deploy(with_drain(1, 60));
    sim.run(Span::secs(59));
    assert_eq!(sim.ids("hello").len(), 2);
    sim.run(Span::secs(1));
    assert_eq!(sim.ids("hello").len(), 1);

    sim.serve(with_drain(2, 60));
    sim.deploy(with_drain(1, 60));
    sim.run(Span::secs(1));
    sim.deploy(with_drain(1, 2));
    sim.run(Span::secs(1));
    assert_eq!(sim.ids("hello").len(), 1, "a shorter one holds at once");
}

#[test]
fn agents_are_not_sent_the_drain_time() {
    let mut sim = served_by(0, Span::default());
    sim.deploy(ServiceConfig {
        drain: Some(DRAIN),
        ..config("hello", 2)
    });
    let set = sim.cluster().desired_set(&node(1)).unwrap();
    assert_eq!(set.processes[0].config.drain, None);
}
