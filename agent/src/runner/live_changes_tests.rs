use std::time::Duration;

use tucano_api::{
    ids::{Digest, ProcessId, Revision},
    settings::parse,
    units::{Bytes, Span},
};

use super::*;
use crate::runner::plan::same_container;

fn process(revision: u64, more: &str) -> DesiredProcess {
    let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\n{more}");
    let config: ServiceConfig = parse("a", &text).unwrap();
    DesiredProcess {
        address: None,
        kept: Default::default(),
        devices: Vec::new(),
        id: ProcessId::new(&config.name, 1),
        revision: Revision(revision),
        image: Digest::sha256(&"0".repeat(64)).unwrap(),
        config,
        slot: None,
        volumes: Vec::new(),
        run: None,
    }
}

fn actual(phase: Phase) -> Actual {
    Actual {
        phase,
        ..Actual::new(process(1, ""))
    }
}

fn running(health: Health) -> Phase {
    Phase::Running {
        health,
        since: Duration::ZERO,
    }
}

#[test]
fn limits_of_a_running_process_wait_for_the_kernel() {
    let desired = process(
        2,
        "memory = \"1GiB\"\nstop_timeout = \"7s\"\ndisk = \"1GiB\"",
    );
    for phase in [
        Phase::Launching,
        running(Health::Starting),
        running(Health::Healthy),
    ] {
        let next = in_force(&actual(phase), &desired);
        assert_eq!(next.config.memory, Bytes::mib(256));
        assert_eq!(next.revision, Revision(1), "not all of it is in force");
        assert_eq!(next.config.stop_timeout, Span::secs(7), "the rest is");
        assert_eq!(next.config.disk, Bytes::mib(1024));
    }
    let restart_at = Duration::ZERO;
    for phase in [
        Phase::New,
        Phase::Pulling,
        Phase::Pulled,
        Phase::Ended { restart_at },
    ] {
        assert_eq!(in_force(&actual(phase), &desired), desired, "{phase:?}");
    }
}

#[test]
fn a_healthy_process_has_to_answer_a_new_probe_first() {
    let desired = process(2, "health = { http = \"/new\", interval = \"3s\" }");
    let next = in_force(&actual(running(Health::Healthy)), &desired);
    assert_eq!(
        (next.revision, next.config.health.http),
        (Revision(1), None)
    );
    // What does not answer, or has not answered yet, has nothing to lose.
    for health in [Health::Starting, Health::Unhealthy] {
        assert_eq!(in_force(&actual(running(health)), &desired), desired);
    }
}

#[test]
fn the_times_of_a_probe_change_at_once() {
    let desired = process(2, "health = { interval = \"3s\", grace = \"9s\" }");
    let next = in_force(&actual(running(Health::Healthy)), &desired);
    assert_eq!(next, desired);
}

#[test]
fn a_change_of_hosts_changes_the_host_that_probes_name() {
    let usual = process(1, "health = { http = \"/\" }");
    let other = process(1, "health = { http = \"/\" }\nhosts = [\"a.b\"]");
    assert!(probes_differ(&usual.config, &other.config));
    assert!(same_container(&usual, &other));
}
