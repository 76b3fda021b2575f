//! Processes that misbehave: each alone bears it.

use tucano_api::{
    agent::ProcessState,
    state::{AlertKind, ProcessView},
};
use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options, images};

fn the_process(cluster: &Cluster, service: &str) -> Option<ProcessView> {
    cluster.processes(service).into_iter().next()
}

#[test]
fn a_memory_hog_alone_is_killed_and_reported() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options {
        workers: 1,
        ..Options::default()
    });
    let beside = "name = \"hello\"\nconcurrency = 1\nport = 8080\nmemory = \"32MiB\"\n";
    cluster.deploy_healthy(beside, &images::sample("hello"));
    let hog = "name = \"hog\"\nconcurrency = 1\nport = 8080\nmemory = \"48MiB\"\n";
    cluster.deploy_healthy(hog, &images::sample("memory-hog"));
    drop(cluster.request("hog", "/hog"));
    let exit = cluster.wait("the hog's end", || {
        the_process(&cluster, "hog")?.report.last_exit
    });
    assert!(exit.oom_killed, "{exit:?}");
    let alert = cluster.wait("the alert", || {
        let alerts = cluster.alerts().all();
        alerts
            .into_iter()
            .find(|alert| alert.kind == AlertKind::ProcessOomKilled)
    });
    assert!(alert.subject.starts_with("hog-"), "{alert:?}");
    let hello = the_process(&cluster, "hello").unwrap();
    assert_eq!(
        (hello.report.restarts, hello.report.state),
        (0, ProcessState::Healthy)
    );
    cluster.wait_for_healthy("hog", 1);
}

#[test]
fn a_fork_bomb_is_stopped_by_its_pids_limit() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options {
        workers: 1,
        ..Options::default()
    });
    let bomb = "name = \"bomb\"\nconcurrency = 1\nport = 8080\nmemory = \"64MiB\"\npids = 20\n";
    cluster.deploy_healthy(bomb, &images::sample("fork-bomb"));
    let answer = cluster.request("bomb", "/bomb").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let metrics = cluster.wait("a refused fork in the metrics", || {
        let metrics = the_process(&cluster, "bomb")?.report.metrics?;
        (metrics.pids_refused > 0).then_some(metrics)
    });
    assert!(
        metrics.pids_limit == 20 && metrics.pids_current <= 20,
        "{metrics:?}"
    );
    assert_eq!(cluster.output_on(0, "echo", &["alive"]), "alive\n");
}

#[test]
fn a_crash_loop_backs_off_and_makes_one_alert() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options {
        workers: 1,
        ..Options::default()
    });
    let config = "name = \"crash-loop\"\nconcurrency = 1\nport = 8080\nmemory = \"32MiB\"\n";
    let answer = cluster.deploy(
        config,
        &images::sample("crash-loop"),
        "?wait=true&timeout=60s",
    );
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("exit code 1"), "{answer:?}");
    let process = cluster.wait("the fourth restart", || {
        the_process(&cluster, "crash-loop").filter(|process| process.report.restarts >= 4)
    });
    let reason = process.report.reason.clone().unwrap_or_default();
    assert!(
        reason.contains("exit code 1") || process.report.state == ProcessState::Starting,
        "{process:#?}"
    );
    let crashing = |alert: &&tucano_api::state::Alert| alert.kind == AlertKind::ProcessCrashing;
    cluster.wait("the alert", || {
        cluster.alerts().all().iter().find(crashing).cloned()
    });
    assert_eq!(cluster.alerts().all().iter().filter(crashing).count(), 1);
    let logs = cluster.curl(&[], "/v1/services/crash-loop/logs?tail=10");
    assert!(
        logs.status == 200 && logs.body.contains("crash-loop-"),
        "{logs:?}"
    );
}

#[test]
fn a_slow_start_gets_no_request_before_it_is_healthy() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options {
        workers: 1,
        ..Options::default()
    });
    let config = "name = \"slow-start\"\nconcurrency = 1\nport = 8080\nmemory = \"32MiB\"\n\
                  health = { http = \"/healthz\" }\nenv = { START_DELAY_MS = \"2000\" }\n";
    let answer = cluster.deploy(config, &images::sample("slow-start"), "");
    assert_eq!(answer.status, 201, "{answer:?}");
    let first = cluster.wait("the first answer that is not 503", || {
        let answer = cluster.request("slow-start", "/").ok()?;
        (answer.status != 503).then(|| (answer, the_process(&cluster, "slow-start")))
    });
    assert_eq!(first.0.status, 200, "{first:?}");
    assert_eq!(first.1.unwrap().report.state, ProcessState::Healthy);
}
