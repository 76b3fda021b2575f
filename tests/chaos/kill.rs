//! kill -9 of each program, one at a time, under load.

use std::collections::BTreeMap;

use tucano_api::ids::ProcessId;
use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options, images, user::Load};

const HELLO: &str = "name = \"hello\"\nconcurrency = 6\nport = 8080\nmemory = \"32MiB\"\nhealth = { http = \"/healthz\", interval = \"200ms\" }\n";

/// A cluster with `hello` healthy and under load.
fn under_load() -> (Cluster, Load) {
    let cluster = Cluster::start(&Options::default());
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    let load = cluster
        .user()
        .load(cluster.balancer(), "hello.localhost", 4);
    goes_on(&cluster, &load);
    (cluster, load)
}

/// Waits for 200 more requests answered with 200.
fn goes_on(cluster: &Cluster, load: &Load) {
    let enough = load.successes() + 200;
    cluster.wait("the service to answer", || {
        (load.successes() >= enough).then_some(())
    });
}

fn started(cluster: &Cluster) -> BTreeMap<ProcessId, u64> {
    let times = cluster
        .wait_for_healthy("hello", 6)
        .into_iter()
        .map(|process| {
            (
                process.report.id,
                process.report.started_at.unwrap_or_default().0,
            )
        });
    times.collect()
}

fn no_request_failed(cluster: &Cluster, load: Load) {
    let failed: Vec<_> = load
        .stop()
        .into_iter()
        .filter(|sample| !sample.is_ok())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", cluster.logs());
}

#[test]
fn a_killed_controller_loses_no_deploy_and_no_request() {
    if !needs(&CLUSTER) {
        return;
    }
    let (mut cluster, load) = under_load();
    let (before, balancer) = (started(&cluster), cluster.balancer_process());
    // Acknowledged, and killed at once.
    let second = HELLO
        .replace("\"hello\"", "\"second\"")
        .replace("= 6", "= 3");
    let answer = cluster.deploy(&second, &images::sample("hello"), "");
    assert_eq!(answer.status, 201, "{answer:?}");
    cluster.kill_ctld();
    goes_on(&cluster, &load);
    cluster.start_ctld();
    cluster.wait_for_alive(3);
    cluster.wait_for_healthy("second", 3);
    assert_eq!(started(&cluster), before, "no container was restarted");
    assert_eq!(
        cluster.balancer_process(),
        balancer,
        "the balancer was adopted"
    );
    cluster.wait("the balancer to know the second service", || {
        cluster
            .request("second", "/")
            .ok()
            .filter(|answer| answer.status == 200)
    });
    assert_eq!(cluster.answering("second", 12).len(), 3);
    goes_on(&cluster, &load);
    no_request_failed(&cluster, load);
}

#[test]
fn a_killed_balancer_is_restarted() {
    if !needs(&CLUSTER) {
        return;
    }
    let (cluster, load) = under_load();
    let before = cluster.balancer_process();
    cluster.kill_balancer();
    cluster.wait("another balancer", || {
        cluster
            .balancer_process()
            .filter(|pid| Some(pid) != before.as_ref())
    });
    goes_on(&cluster, &load);
    drop(load.stop());
}

#[test]
fn containers_of_a_killed_agent_are_adopted_by_the_next() {
    if !needs(&CLUSTER) {
        return;
    }
    let (mut cluster, load) = under_load();
    let before = started(&cluster);
    cluster.kill_agent(0);
    cluster.start_agent(0);
    goes_on(&cluster, &load);
    cluster.wait_for_alive(3);
    assert_eq!(started(&cluster), before, "no container was restarted");
    no_request_failed(&cluster, load);
}

#[test]
fn the_exit_code_of_a_process_that_ends_without_its_agent_is_reported() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut cluster = Cluster::start(&Options {
        workers: 1,
        // The request waits for a process; the node is not dead meanwhile.
        ctl_settings: "lease = \"60s\"\ndrain = \"500ms\"\n".to_owned(),
        ..Options::default()
    });
    let one = HELLO.replace("= 6", "= 1");
    cluster.deploy_healthy(&one, &images::sample("hello"));
    cluster.kill_agent(0);
    drop(cluster.request("hello", "/crash"));
    cluster.start_agent(0);
    let exit = cluster.wait("the exit", || {
        cluster.processes("hello").first()?.report.last_exit
    });
    assert_eq!(exit.code, Some(3), "{exit:?}");
    cluster.wait_for_healthy("hello", 1);
}

#[test]
fn a_killed_process_is_restarted_without_a_failing_request() {
    if !needs(&CLUSTER) {
        return;
    }
    let (cluster, load) = under_load();
    let running = cluster.running_on(0);
    let hello = running.iter().find(|process| process.arguments == "/hello");
    hello.expect("one runs").kill();
    cluster.wait("the restart", || {
        cluster
            .processes("hello")
            .iter()
            .any(|process| process.report.restarts == 1)
            .then_some(())
    });
    cluster.wait_for_healthy("hello", 6);
    goes_on(&cluster, &load);
    no_request_failed(&cluster, load);
}
