//! Removing a service leaves nothing behind.

use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options, images, traces};

#[test]
fn nothing_remains_on_any_node_after_a_service_is_removed() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    let config = "name = \"hello\"\nconcurrency = 5\nport = 8080\nmemory = \"32MiB\"\nstop_timeout = \"1s\"\n";
    cluster.deploy_healthy(config, &images::sample("hello"));
    for index in 0..3 {
        let traces = traces::on_worker(&cluster, index);
        for kind in [
            "cgroup",
            "process directory",
            "layer",
            "link",
            "rule",
            "process:",
        ] {
            assert!(
                traces.iter().any(|trace| trace.starts_with(kind)),
                "no {kind} in {traces:#?}"
            );
        }
    }
    let answer = cluster.curl(&["-X", "DELETE"], "/v1/services/hello?wait=true");
    assert_eq!(answer.status, 200, "{answer:?}");
    for index in 0..3 {
        cluster.wait(
            &format!(
                "worker {index} to be clean: {:#?}",
                traces::on_worker(&cluster, index)
            ),
            || traces::on_worker(&cluster, index).is_empty().then_some(()),
        );
    }
    assert_eq!(cluster.request("hello", "/").unwrap().status, 404);
    let state = cluster.state().unwrap();
    assert!(
        state.configured_services.is_empty() && state.active_services.is_empty(),
        "{state:#?}"
    );
    let blobs = cluster.path("ctl");
    let left = cluster
        .on_ctl("find")
        .arg(blobs)
        .args(["-path", "*blobs/sha256/*"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}
