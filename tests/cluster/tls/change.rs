//! From plain HTTP to TLS and back.

use std::fs;

use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, images};

use super::{HELLO, curl, small, text};

/// Changes a program's settings.
fn edit(cluster: &Cluster, file: &str, change: impl FnOnce(String) -> String) {
    let path = cluster.path(file);
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(text.clone());
    assert_ne!(changed, text, "{file}");
    fs::write(path, changed).unwrap();
}

#[test]
fn tls_off_on_both_sides_is_plain_and_workers_change_one_by_one() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut options = small();
    options.api_settings = "tls = \"off\"".to_owned();
    let mut cluster = Cluster::start(&options);
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    let ctl = cluster.ctl().ip();
    let plain = curl(&cluster, &[&format!("http://{ctl}:7070/v1/state")]);
    assert!(text(&plain.stdout).ends_with("\n200"), "{plain:?}");
    // The harness's agents speak TLS; this one does not any more.
    let settings = cluster.path("w1.toml");
    let tls = fs::read_to_string(&settings).unwrap();
    fs::write(
        &settings,
        tls.replace("https://", "http://") + "tls = \"off\"\n",
    )
    .unwrap();
    cluster.kill_agent(0);
    cluster.start_agent(0);
    let w1 = cluster.worker(0).ip();
    cluster.wait("the plain agent", || {
        let answer = curl(&cluster, &[&format!("http://{w1}:7071/healthz")]);
        text(&answer.stdout).starts_with("ok").then_some(())
    });
    cluster.patch("hello", "{\"concurrency\": 4}");
    cluster.wait_for_healthy("hello", 4);
    assert_eq!(cluster.placement("hello").len(), 2);
    // And back.
    fs::write(&settings, tls).unwrap();
    cluster.kill_agent(0);
    cluster.start_agent(0);
    cluster.patch("hello", "{\"concurrency\": 6}");
    cluster.wait_for_healthy("hello", 6);
}

#[test]
fn a_cluster_from_before_tls_comes_to_it_by_the_guides_steps_without_a_request_lost() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut options = small();
    options.api_settings = "tls = \"off\"".to_owned();
    let mut cluster = Cluster::start(&options);
    for index in 0..2 {
        let file = format!("w{}.toml", index + 1);
        edit(&cluster, &file, |text| text.replace("https://", "http://"));
        cluster.kill_agent(index);
        cluster.start_agent(index);
    }
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    let started = |cluster: &Cluster| {
        let processes = cluster.processes("hello").into_iter();
        processes
            .map(|process| process.report.started_at)
            .collect::<Vec<_>>()
    };
    let before = started(&cluster);
    let load = cluster
        .user()
        .load(cluster.balancer(), "hello.localhost", 2);

    // As it is after an upgrade: no word of TLS anywhere.
    cluster.kill_ctld();
    edit(&cluster, "ctl.toml", |text| {
        text.replace("tls = \"off\"", "")
    });
    fs::remove_dir_all(cluster.path("ctl/tls")).unwrap();
    cluster.start_ctld();
    cluster.take_authority();
    cluster.wait_for_alive(2);
    let logs = cluster.logs();
    assert!(logs.contains("this cluster is older than TLS"), "{logs}");
    let plain_workers = |cluster: &Cluster| {
        let nodes = cluster.state()?.alive_nodes;
        let is_plain = |note: &String| note.contains("is plain HTTP");
        Some(
            nodes
                .iter()
                .filter(|node| node.notes.iter().any(is_plain))
                .count(),
        )
    };
    cluster.wait("both workers to be named", || {
        (plain_workers(&cluster)? == 2).then_some(())
    });

    for index in 0..2 {
        let file = format!("w{}.toml", index + 1);
        edit(&cluster, &file, |text| text.replace("http://", "https://"));
        cluster.kill_agent(index);
        cluster.start_agent(index);
        cluster.wait("one worker less to be named", || {
            (plain_workers(&cluster)? == 1 - index && cluster.state()?.alive_nodes.len() == 2)
                .then_some(())
        });
    }
    cluster.kill_ctld();
    edit(&cluster, "ctl.toml", |text| {
        text.replace("[api]", "[api]\ntls = \"on\"")
    });
    cluster.start_ctld();
    cluster.wait_for_alive(2);
    let plain = curl(
        &cluster,
        &[&format!("http://{}:7070/v1/state", cluster.ctl().ip())],
    );
    assert!(text(&plain.stdout).ends_with("\n400"), "{plain:?}");
    cluster.wait("the same processes", || {
        (started(&cluster) == before).then_some(())
    });
    cluster.patch("hello", "{\"env\": {\"A\": \"b\"}}");

    let samples = load.stop();
    let lost: Vec<_> = samples.iter().filter(|sample| !sample.is_ok()).collect();
    assert!(lost.is_empty() && !samples.is_empty(), "{lost:#?}");
}
