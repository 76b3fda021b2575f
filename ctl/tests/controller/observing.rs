//! Routes, metrics, logs and the OpenAPI document.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    agent::Agent,
    ctl::{Ctl, config},
    image,
};

/// Long-polls the routes like the balancer.
async fn routes(ctl: &Ctl, after: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(ctl.path("data/ctl.sock"))
        .await
        .unwrap();
    let request =
        format!("GET /v1/routes{after} HTTP/1.1\r\nHost: ctl\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200")
        .then(|| serde_json::from_str(body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_gets_each_table_and_none_before_the_first_report() {
    use std::os::unix::fs::PermissionsExt;
    let mut ctl = Ctl::start(&config(1, "lease = \"1h\"", "")).await;
    let mode = std::fs::metadata(ctl.path("data/ctl.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let agent = Agent::start(&ctl, 1).await;
    ctl.deploy_and("?wait=true", &image::config(2, ""), image::archive("one"))
        .await
        .expect(201);
    let table = routes(&ctl, "").await.unwrap();
    let service = &table["services"][0];
    assert_eq!(service["hosts"][0], "hello.localhost");
    assert_eq!(service["endpoints"].as_array().unwrap().len(), 2);
    assert_eq!(service["endpoints"][0]["address"], "127.0.0.11:20001");

    let after = format!("?after={}", table["version"].as_str().unwrap());
    let (next, ()) = tokio::join!(routes(&ctl, &after), async {
        ctl.delete("/v1/services/hello").await.expect(200);
    });
    let next = next.unwrap();
    assert_ne!(next["version"], table["version"]);

    // After a restart the first table follows the first report.
    ctl.deploy_and("?wait=true", &image::config(1, ""), image::archive("one"))
        .await
        .expect(201);
    ctl.kill_9().await;
    drop(agent);
    ctl.start_again().await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), routes(&ctl, "")).await;
    assert!(early.is_err(), "{early:?}");
    let _agent = Agent::start(&ctl, 1).await;
    assert!(routes(&ctl, &after).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_the_cluster() {
    let mut ctl = Ctl::start(&config(2, "lease = \"1s\"", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    agent.report_as(|_, report| {
        report.restarts = 3;
        report.metrics = Some(tucano_api::agent::ProcessMetrics {
            memory_current: tucano_api::units::Bytes(4096),
            ..Default::default()
        });
    });
    ctl.deploy_and("?wait=true", &image::config(2, ""), image::archive("one"))
        .await
        .expect(201);
    let wanted = [
        "tucano_nodes{condition=\"alive\"} 1",
        "tucano_nodes{condition=\"dead\"} 1",
        "tucano_service_configured{service=\"hello\"} 2",
        "tucano_service_healthy{service=\"hello\"} 2",
        "tucano_service_pending{service=\"hello\"} 0",
        "tucano_process_restarts_total{process=\"hello-1\",service=\"hello\",node=\"w1\"} 3",
        "tucano_process_memory_bytes{process=\"hello-2\",service=\"hello\",node=\"w1\"} 4096",
        "tucano_events_total{kind=\"service_configured\"} 1",
        "tucano_actions_held_back 0",
    ];
    let page = ctl
        .eventually("all metrics", async |ctl| {
            let page = ctl.get("/metrics").await.expect(200);
            let page = page.as_str().unwrap().to_owned();
            wanted
                .iter()
                .all(|line| page.lines().any(|have| have == *line))
                .then_some(page)
        })
        .await;
    let bytes = page
        .lines()
        .find_map(|line| line.strip_prefix("tucano_image_store_bytes "))
        .unwrap();
    assert!(bytes.parse::<u64>().unwrap() > 0);
    assert!(page.contains("tucano_persist_seconds_bucket"), "{page}");
    assert!(page.ends_with("# EOF\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_streamed_from_the_nodes_with_the_process_as_prefix() {
    let ctl = Ctl::start(&config(2, "", "[limits]\nlog_lines = 50")).await;
    let _agents = [Agent::start(&ctl, 1).await, Agent::start(&ctl, 2).await];
    ctl.deploy_and("?wait=true", &image::config(2, ""), image::archive("one"))
        .await
        .expect(201);
    let one = ctl
        .get("/v1/processes/hello-2/logs?tail=7&stream=stderr")
        .await
        .expect(200);
    assert_eq!(
        one,
        "I am hello-2\nasked for stream=stderr tail=7 follow=false\n"
    );
    let all = ctl.get("/v1/services/hello/logs").await.expect(200);
    let asked = "asked for stream=both tail=50 follow=false";
    assert_eq!(
        all,
        format!(
            "hello-1 | I am hello-1\nhello-1 | {asked}\nhello-2 | I am hello-2\nhello-2 | {asked}\n"
        )
    );
    ctl.get("/v1/processes/hello-9/logs")
        .await
        .refused(404, "not_found");
    ctl.get("/v1/services/nobody/logs")
        .await
        .refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn following_ends_when_the_service_is_removed() {
    let ctl = Ctl::start(&config(1, "drain = \"1ms\"", "")).await;
    let _agent = Agent::start(&ctl, 1).await;
    ctl.deploy_and("?wait=true", &image::config(1, ""), image::archive("one"))
        .await
        .expect(201);
    let mut following = ctl
        .http()
        .get(ctl.url("/v1/services/hello/logs?follow=true"))
        .send()
        .await
        .unwrap();
    let first = following.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"hello-1 | I am hello-1\n"), "{first:?}");
    ctl.delete("/v1/services/hello?wait=true").await.expect(200);
    while following.chunk().await.unwrap().is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_described() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let document = ctl.get("/openapi.json").await.expect(200);
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<String> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{method} {path}"))
        })
        .collect();
    let known: BTreeSet<String> = [
        "delete /v1/services/{name}",
        "get /healthz",
        "get /metrics",
        "get /v1/active_services",
        "get /v1/active_services/{name}",
        "get /v1/adoption",
        "get /v1/alive_nodes",
        "get /v1/alive_nodes/{name}",
        "get /v1/config",
        "get /v1/configured_services",
        "get /v1/configured_services/{name}",
        "get /v1/dead_nodes",
        "get /v1/dead_nodes/{name}",
        "get /v1/nodes",
        "get /v1/processes/{id}/logs",
        "get /v1/services",
        "get /v1/services/{name}",
        "get /v1/services/{name}/logs",
        "get /v1/services/{name}/revisions",
        "get /v1/state",
        "patch /v1/services/{name}",
        "post /v1/adoption",
        "post /v1/certificates",
        "post /v1/config/reload",
        "post /v1/processes/{id}/exec",
        "post /v1/reports",
        "post /v1/services",
        "post /v1/services/{name}/exec",
        "post /v1/services/{name}/rollback",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(described, known);
    // Every reference resolves.
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is not described");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_served_to_agents_whole_and_in_parts() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let deployed = ctl
        .deploy(&image::config(1, ""), image::large_archive(1 << 20))
        .await
        .expect(201);
    let digest = deployed["image"].as_str().unwrap();
    let url = |digest: &str| ctl.url(&format!("/v2/tucano/images/blobs/{digest}"));
    let answer = ctl.http().get(url(digest)).send().await.unwrap();
    assert_eq!(answer.headers()["etag"], format!("\"{digest}\""));
    let length = answer.content_length().unwrap();
    let manifest = answer.bytes().await.unwrap();
    assert_eq!(manifest.len() as u64, length);
    assert_eq!(tucano_image_builder::layout::sha256(&manifest), digest);
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let mut whole = Vec::new();
    for part in ["bytes=0-999", "bytes=1000-"] {
        let request = ctl.http().get(url(layer)).header("range", part);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 206);
        whole.extend_from_slice(&answer.bytes().await.unwrap());
    }
    assert_eq!(tucano_image_builder::layout::sha256(&whole), layer);
    let unknown = url(&format!("sha256:{}", "0".repeat(64)));
    assert_eq!(ctl.http().get(unknown).send().await.unwrap().status(), 404);
    assert_eq!(
        ctl.http()
            .get(url("sha256:.."))
            .send()
            .await
            .unwrap()
            .status(),
        400
    );
}
