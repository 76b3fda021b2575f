//! Power cuts, kills and flapping in the middle of deploys: when the storm is over, everything is as configured, once.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tucano_api::ids::ProcessId;
use tucano_testkit::{needs, wait_for, wait_until};
use tucano_tests::{CLUSTER, Cluster, Options, images, traces};

pub(crate) const WORKERS: usize = 3;

/// How many blows each storm has.
const ROUNDS: u32 = 20;

pub(crate) fn hello(concurrency: u32, revision: u32) -> String {
    format!(
        "name = \"hello\"\nconcurrency = {concurrency}\nport = 8080\nmemory = \"32MiB\"\nstop_timeout = \"1s\"\n\
         env = {{ ROUND = \"{revision}\" }}\nhealth = {{ http = \"/healthz\", interval = \"200ms\" }}\n"
    )
}

/// Waits until some time of a round has passed, another one in each, so that the blow falls into another moment.
pub(crate) fn another_moment(round: u32) {
    let moment = Instant::now() + Duration::from_millis(u64::from(round * 157 % 1000));
    wait_until("the moment", Duration::from_secs(60), || {
        Instant::now() >= moment
    });
}

/// One change of what is configured, not waited for: deploys, scales up and down, rolls, and removes.
pub(crate) fn change(cluster: &Cluster, round: u32) {
    let answer = match round % 5 {
        0 => cluster.deploy(&hello(6, round), &images::sample("hello"), ""),
        1 => cluster.curl(
            &["-X", "PATCH", "-d", "{\"concurrency\": 9}"],
            "/v1/services/hello",
        ),
        2 => cluster.deploy(&hello(7, round), &images::sample("hello"), ""),
        3 => cluster.curl(
            &["-X", "PATCH", "-d", "{\"concurrency\": 2}"],
            "/v1/services/hello",
        ),
        _ => cluster.curl(&["-X", "DELETE"], "/v1/services/hello"),
    };
    assert!(
        matches!(answer.status, 200 | 201),
        "round {round}: {answer:?}\n{}",
        cluster.logs()
    );
}

/// What the change of a round has configured, as the controller that was started since then tells it.
pub(crate) fn assert_configured(cluster: &Cluster, round: u32) {
    let expected = [Some(6), Some(9), Some(7), Some(2), None][(round % 5) as usize];
    let state = cluster.wait("the controller", || cluster.state());
    let mut services = state.configured_services.iter();
    let configured = services
        .find(|service| service.config.name.as_str() == "hello")
        .map(|service| service.config.concurrency);
    assert_eq!(configured, expected, "round {round}: {}", cluster.logs());
}

/// Each process, and when it was started.
fn started(cluster: &Cluster) -> BTreeSet<(ProcessId, u64)> {
    let processes = cluster.processes("hello").into_iter();
    processes
        .filter_map(|process| Some((process.report.id, process.report.started_at?.0)))
        .collect()
}

fn wait_within(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    wait_for("the condition, or the deadline", patience * 2, || {
        let met = condition();
        (met || Instant::now() >= deadline).then_some(met)
    })
}

/// After a last deploy exactly its processes run; after its removal nothing is left anywhere.
pub(crate) fn ends_well(cluster: &Cluster) {
    cluster.wait_for_alive(WORKERS);
    cluster.deploy_healthy(&hello(6, 1000), &images::sample("hello"));
    cluster.wait_for_healthy("hello", 6);
    cluster.wait("each process to run once", || {
        (cluster.count_running("/hello") == 6).then_some(())
    });
    assert_eq!(cluster.answering("hello", 60).len(), 6);
    let answer = cluster.curl(&["-X", "DELETE"], "/v1/services/hello?wait=true");
    assert_eq!(answer.status, 200, "{answer:?}\n{}", cluster.logs());
    for index in 0..WORKERS {
        let mut left = Vec::new();
        let clean = wait_within(Duration::from_secs(30), || {
            left = traces::on_worker(cluster, index);
            left.is_empty()
        });
        assert!(
            clean,
            "worker {index} still has {left:#?}\n{}",
            cluster.logs()
        );
    }
}

#[test]
fn agents_killed_at_any_moment_leave_no_duplicates_and_no_leftovers() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut cluster = Cluster::start(&Options::default());
    for round in 0..ROUNDS {
        change(&cluster, round);
        another_moment(round);
        let victims = match round % 3 {
            0 => vec![0],
            1 => vec![1, 2],
            _ => vec![0, 1, 2],
        };
        for &victim in &victims {
            cluster.kill_agent(victim);
        }
        for &victim in &victims {
            cluster.start_agent(victim);
        }
    }
    ends_well(&cluster);
}

#[test]
fn a_controller_killed_at_any_moment_loses_no_deploy_and_no_request() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut cluster = Cluster::start(&Options::default());
    let steady = hello(3, 0).replace("\"hello\"", "\"steady\"");
    cluster.deploy_healthy(&steady, &images::sample("hello"));
    let load = cluster
        .user()
        .load(cluster.balancer(), "steady.localhost", 4);
    for round in 0..ROUNDS {
        change(&cluster, round);
        another_moment(round);
        cluster.kill_ctld();
        cluster.start_ctld();
        assert_configured(&cluster, round);
    }
    let failed: Vec<_> = load
        .stop()
        .into_iter()
        .filter(|sample| !sample.is_ok())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", cluster.logs());
    cluster.wait_for_healthy("steady", 3);
    let answer = cluster.curl(&["-X", "DELETE"], "/v1/services/steady?wait=true");
    assert_eq!(answer.status, 200, "{answer:?}");
    ends_well(&cluster);
}

#[test]
fn workers_lose_power_during_deploys() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut cluster = Cluster::start(&Options::default());
    for round in 0..10 {
        change(&cluster, round);
        another_moment(round);
        let victims = if round % 4 == 3 {
            vec![0, 1, 2]
        } else {
            vec![round as usize % WORKERS]
        };
        for &victim in &victims {
            cluster.power_off(victim);
        }
        another_moment(round + 3);
        for &victim in &victims {
            cluster.boot(victim);
        }
    }
    ends_well(&cluster);
}

#[test]
fn the_controllers_host_loses_its_power_while_the_workers_live() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut cluster = Cluster::start(&Options::default());
    cluster.deploy_healthy(&hello(6, 0), &images::sample("hello"));
    let before = started(&cluster);
    change(&cluster, 1);
    cluster.power_off_ctl();
    cluster.boot_ctl();
    let after = cluster.wait("nine processes", || {
        let after = started(&cluster);
        (after.len() == 9).then_some(after)
    });
    assert!(
        before.is_subset(&after),
        "no container was restarted: {before:?} {after:?}"
    );
    cluster.wait("the balancer", || {
        let answer = cluster.request("hello", "/").ok()?;
        (answer.status == 200).then_some(())
    });
    change(&cluster, 3);
    cluster.wait_for_healthy("hello", 2);
    cluster.patch("hello", "{\"concurrency\": 6}");
    ends_well(&cluster);
}

#[test]
fn a_flapping_network_doubles_nothing() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    cluster.deploy_healthy(&hello(6, 0), &images::sample("hello"));
    for round in 0..10 {
        let cut = cluster.worker(round as usize % WORKERS);
        cut.isolate().unwrap();
        another_moment(6 + round);
        routed_at_most(&cluster, 6);
        cut.rejoin().unwrap();
        another_moment(5 + round);
        routed_at_most(&cluster, 6);
    }
    ends_well(&cluster);
}

fn routed_at_most(cluster: &Cluster, bound: usize) {
    let processes = cluster.processes("hello");
    let routed = processes.iter().filter(|process| process.routed).count();
    assert!(routed <= bound, "{processes:#?}");
}
