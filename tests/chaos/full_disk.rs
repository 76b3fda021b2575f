//! A worker's data disk is full: the process says so, and starts once there is room.

use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options, images, images::text};

const HELLO: &str = "name = \"hello\"\nconcurrency = 2\nport = 8080\nmemory = \"32MiB\"\n";

#[test]
fn a_full_worker_disk_is_reported_and_recovers() {
    if !needs(&CLUSTER) {
        return;
    }
    // Room for the agent's own files, and not for the image.
    let cluster = Cluster::start(&Options {
        workers: 1,
        agent_disk: Some("1m"),
        ..Options::default()
    });
    let answer = cluster.deploy(HELLO, &images::sample("hello"), "");
    assert_eq!(answer.status, 201, "{answer:?}");
    cluster.wait("the reason", || {
        let is_about_disk = |why: String| why.contains("no space left on the disk");
        let mut processes = cluster.processes("hello").into_iter();
        processes
            .any(|process| process.report.reason.is_some_and(is_about_disk))
            .then_some(())
    });
    cluster.output_on(
        0,
        "mount",
        &["-o", "remount,size=200m", text(&cluster.agent_data(0))],
    );
    cluster.wait_for_healthy("hello", 2);
    assert_eq!(cluster.answering("hello", 20).len(), 2);
}
