//! Where processes are placed, seen from outside.

use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options, images};

fn config(name: &str, concurrency: u32) -> String {
    format!("name = \"{name}\"\nconcurrency = {concurrency}\nport = 8080\nmemory = \"32MiB\"\n")
}

fn counts(cluster: &Cluster, service: &str) -> Vec<usize> {
    let mut counts: Vec<usize> = cluster.placement(service).into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts
}

#[test]
fn seven_processes_on_three_workers_stay_balanced_when_scaled() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    cluster.deploy_healthy(&config("hello", 7), &images::sample("hello"));
    assert_eq!(counts(&cluster, "hello"), [3, 2, 2]);
    cluster.patch("hello", "{\"concurrency\": 2}");
    cluster.wait_for_healthy("hello", 2);
    assert_eq!(counts(&cluster, "hello"), [1, 1]);
    assert_eq!(cluster.answering("hello", 12).len(), 2);
    cluster.patch("hello", "{\"concurrency\": 7}");
    cluster.wait_for_healthy("hello", 7);
    assert_eq!(counts(&cluster, "hello"), [3, 2, 2]);
    assert_eq!(cluster.answering("hello", 42).len(), 7);
}

#[test]
fn two_services_interleave() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    cluster.deploy_healthy(&config("first", 2), &images::sample("hello"));
    cluster.deploy_healthy(&config("second", 4), &images::sample("hello"));
    let (first, second) = (cluster.placement("first"), cluster.placement("second"));
    assert_eq!((first.len(), second.len()), (2, 3), "{first:?} {second:?}");
    let total = |node: &str| first.get(node).unwrap_or(&0) + second.get(node).unwrap_or(&0);
    assert_eq!(
        [total("w1"), total("w2"), total("w3")],
        [2, 2, 2],
        "{first:?} {second:?}"
    );
}

#[test]
fn a_process_without_room_waits_with_a_reason_until_it_fits() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut options = Options::default();
    options.agent_settings += "memory_reservable = \"100MiB\"\n";
    let cluster = Cluster::start(&options);
    let answer = cluster.deploy(
        "name = \"big\"\nconcurrency = 4\nport = 8080\nmemory = \"64MiB\"\n",
        &images::sample("hello"),
        "?wait=true&timeout=3s",
    );
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer.body.contains("not_healthy") && answer.body.contains("64"),
        "{answer:?}"
    );
    let active = &cluster.state().unwrap().active_services[0];
    assert_eq!(active.healthy, 3, "{active:#?}");
    assert_eq!(
        active
            .pending
            .iter()
            .map(|pending| pending.count)
            .sum::<u32>(),
        1
    );
    cluster.patch("big", "{\"memory\": \"40MiB\"}");
    cluster.wait_for_healthy("big", 4);
}
