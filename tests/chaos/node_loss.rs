//! A worker that is cut off, comes back, is restarted, or is not.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tucano_api::state::AlertKind;
use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options, images};

const HELLO: &str = "name = \"hello\"\nconcurrency = 6\nport = 8080\nmemory = \"32MiB\"\nhealth = { http = \"/healthz\", interval = \"200ms\" }\n";

fn alerted(cluster: &Cluster, kind: AlertKind, subject: &str) -> usize {
    cluster
        .alerts()
        .all()
        .iter()
        .filter(|a| a.kind == kind && a.subject == subject)
        .count()
}

fn wait_for_alert(cluster: &Cluster, kind: AlertKind, subject: &str) {
    cluster.wait(&format!("the alert {kind:?} of {subject}"), || {
        (alerted(cluster, kind, subject) > 0).then_some(())
    });
}

#[test]
fn an_isolated_worker_is_replaced_and_rejoins_without_duplicates() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    let load = cluster
        .user()
        .load(cluster.balancer(), "hello.localhost", 4);
    cluster.wait("some load", || (load.successes() > 100).then_some(()));

    let cut = Instant::now();
    cluster.worker(0).isolate().unwrap();
    // The bound is part of what is promised: replaced and healthy within 5 s.
    cluster.wait("six healthy processes on the other two", || {
        (cluster.placement("hello") == BTreeMap::from([("w2".to_owned(), 3), ("w3".to_owned(), 3)]))
            .then_some(())
    });
    let replaced = cut.elapsed();
    let enough = load.successes() + 200;
    cluster.wait("more load", || (load.successes() > enough).then_some(()));
    let samples = load.stop();
    let failed: Vec<_> = samples.iter().filter(|sample| !sample.is_ok()).collect();
    // Also those that were in flight to the worker, whose connections nothing resets.
    assert!(failed.is_empty(), "{failed:#?}\n{}", cluster.logs());
    assert!(
        replaced < Duration::from_secs(5),
        "healthy again only after {replaced:?}"
    );
    eprintln!(
        "replaced and healthy after {replaced:?}; none of {} requests failed",
        samples.len()
    );
    wait_for_alert(&cluster, AlertKind::NodeMissing, "w1");

    cluster.worker(0).rejoin().unwrap();
    wait_for_alert(&cluster, AlertKind::NodeBack, "w1");
    cluster.wait("an even spread again", || {
        let counts: Vec<usize> = cluster.placement("hello").into_values().collect();
        (counts == [2, 2, 2] && cluster.processes("hello").len() == 6).then_some(())
    });
    // Processes that were replaced may still be stopping.
    cluster.wait("each process runs once", || {
        (cluster.count_running("/hello") == 6).then_some(())
    });
    assert_eq!(alerted(&cluster, AlertKind::NodeMissing, "w1"), 1);
    assert_eq!(alerted(&cluster, AlertKind::NodeBack, "w1"), 1);
}

#[test]
fn a_restart_command_brings_the_worker_back() {
    if !needs(&CLUSTER) {
        return;
    }
    let command = "restart = \"echo $TUCANO_NODE > {directory}/restart-request\"\n".to_owned();
    let mut options = Options {
        worker_settings: [(0, command)].into(),
        ..Options::default()
    };
    options.ctl_settings += "restart_backoff = \"200ms\"\n";
    let mut cluster = Cluster::start(&options);
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    cluster.power_off(0);
    let request = cluster.path("restart-request");
    let asked_for = cluster.wait("the restart command", || {
        std::fs::read_to_string(&request)
            .ok()
            .filter(|text| !text.is_empty())
    });
    assert_eq!(asked_for.trim(), "w1");
    cluster.boot(0);
    wait_for_alert(&cluster, AlertKind::NodeBack, "w1");
    cluster.wait_for_alive(3);
    assert!(cluster.state().unwrap().dead_nodes.is_empty());
    cluster.wait("an even spread again", || {
        let counts: Vec<usize> = cluster.placement("hello").into_values().collect();
        (counts == [2, 2, 2]).then_some(())
    });
}

#[test]
fn a_failing_restart_command_moves_the_worker_to_dead_nodes() {
    if !needs(&CLUSTER) {
        return;
    }
    let command = "restart = [\"sh\", \"-c\", \"echo no such machine >&2; exit 1\"]\n".to_owned();
    let mut options = Options {
        worker_settings: [(1, command)].into(),
        ..Options::default()
    };
    options.ctl_settings += "restart_attempts = 2\nrestart_backoff = \"100ms\"\n";
    let mut cluster = Cluster::start(&options);
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    cluster.power_off(1);
    let dead = cluster.wait("the dead node", || {
        cluster.state()?.dead_nodes.into_iter().next()
    });
    assert_eq!(dead.name.as_str(), "w2");
    assert!(dead.reason.contains("no such machine"), "{dead:?}");
    wait_for_alert(&cluster, AlertKind::NodeDead, "w2");
    cluster.wait_for_healthy("hello", 6);
    assert_eq!(cluster.answering("hello", 30).len(), 6);

    cluster.boot(1);
    wait_for_alert(&cluster, AlertKind::NodeBack, "w2");
    cluster.wait("an empty dead_nodes", || {
        cluster.state()?.dead_nodes.is_empty().then_some(())
    });
}
