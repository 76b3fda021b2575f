//! From an archive that another tool made to a served request, by curl alone.

use std::{collections::BTreeSet, path::Path};

use tucano_testkit::{needs, tool};
use tucano_tests::{CLUSTER, Cluster, Options, cluster::field, images};

const HELLO: &str = "name = \"hello\"\nconcurrency = 6\nport = 8080\nmemory = \"64MiB\"\n";

fn every_process_answers(make: impl Fn(&Path) -> std::path::PathBuf) {
    let cluster = Cluster::start(&Options::default());
    let archive = make(&cluster.path(""));
    cluster.deploy_healthy(HELLO, &archive);
    let ids: BTreeSet<String> = cluster
        .processes("hello")
        .iter()
        .map(|process| process.report.id.to_string())
        .collect();
    assert_eq!(ids.len(), 6);
    assert_eq!(cluster.answering("hello", 36), ids);
}

#[test]
fn an_image_made_by_umoci_answers_from_every_process() {
    if needs(&CLUSTER) && needs(&[tool("umoci"), tool("curl")]) {
        every_process_answers(images::hello_by_umoci);
    }
}

#[test]
fn an_image_copied_by_skopeo_answers_from_every_process() {
    if needs(&CLUSTER) && needs(&[tool("skopeo"), tool("curl")]) {
        every_process_answers(images::hello_by_skopeo);
    }
}

#[test]
fn a_process_finds_its_identity_in_its_environment() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    cluster.deploy_healthy(
        &format!("{HELLO}env = {{ GREETING = \"good day\" }}"),
        &images::sample("hello"),
    );
    let body = cluster.request("hello", "/").unwrap().body;
    assert_eq!(field(&body, "service"), "hello", "{body}");
    assert_eq!(field(&body, "revision"), "1", "{body}");
    let process = field(&body, "process");
    let placed = cluster
        .processes("hello")
        .into_iter()
        .find(|p| p.report.id.as_str() == process);
    assert_eq!(
        placed.expect("it is listed").node.to_string(),
        field(&body, "node"),
        "{body}"
    );
    let environment = cluster.request("hello", "/env").unwrap().body;
    for line in ["GREETING=good day", "PORT=8080", "TUCANO_SERVICE=hello"] {
        assert!(environment.contains(line), "{environment}");
    }
}

#[test]
fn a_stored_image_deploys_again_by_its_digest_and_a_new_revision_takes_over_under_load() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    let digest = cluster.state().unwrap().configured_services[0]
        .image
        .to_string();
    let load = cluster
        .user()
        .load(cluster.balancer(), "hello.localhost", 4);
    let config = format!("{HELLO}image = \"{digest}\"\nenv = {{ VERSION = \"2\" }}\n");
    let file = cluster.path("again.toml");
    std::fs::write(&file, config).unwrap();
    let body = format!("@{}", file.display());
    let arguments = [
        "-H",
        "content-type: application/toml",
        "--data-binary",
        &body,
    ];
    let answer = cluster.curl(&arguments, "/v1/services?wait=true");
    assert_eq!(answer.status, 200, "{answer:?}\n{}", cluster.logs());
    cluster.wait_for_healthy("hello", 6);
    let revision = field(&cluster.request("hello", "/").unwrap().body, "revision");
    assert_eq!(revision, "2");
    let failed: Vec<_> = load
        .stop()
        .into_iter()
        .filter(|sample| !sample.is_ok())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", cluster.logs());
}
