//! Changes that running processes take, through the API and under load.

use std::collections::BTreeSet;

use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options, images};

const HELLO: &str = "name = \"hello\"\nconcurrency = 3\nport = 8080\nmemory = \"64MiB\"\n";

/// Ids, starts and restarts of the service's processes.
fn processes(cluster: &Cluster) -> BTreeSet<(String, String, u32)> {
    let processes = cluster.processes("hello").into_iter();
    processes
        .map(|process| {
            let report = process.report;
            let started = format!("{:?}", report.started_at);
            (report.id.to_string(), started, report.restarts)
        })
        .collect()
}

fn memory_limits(cluster: &Cluster) -> Vec<u64> {
    let processes = cluster.processes("hello").into_iter();
    processes
        .filter_map(|process| Some(process.report.metrics?.memory_limit.0 >> 20))
        .collect()
}

#[test]
fn a_change_of_memory_restarts_nothing_and_loses_no_request() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    let before = processes(&cluster);
    let host = "hello.localhost";
    let load = cluster.user().load(cluster.balancer(), host, 8);
    for (mib, body) in [
        (96, "{\"memory\": \"96MiB\", \"pids\": 100}"),
        (48, "{\"memory\": \"48MiB\", \"cpus\": 0.5}"),
    ] {
        // Waits until the agents report that the limits are in force.
        cluster.patch("hello", body);
        cluster.wait("the limits", || {
            (memory_limits(&cluster) == [mib; 3]).then_some(())
        });
        assert_eq!(processes(&cluster), before);
    }
    let health =
        "{\"health\": {\"http\": \"/healthz\", \"interval\": \"200ms\"}, \"stop_timeout\": \"3s\"}";
    cluster.patch("hello", health);
    assert_eq!(processes(&cluster), before);
    let sent = load.stop();
    let failed: Vec<_> = sent.iter().filter(|sample| !sample.is_ok()).collect();
    assert!(!sent.is_empty() && failed.is_empty(), "{failed:?}");
}
