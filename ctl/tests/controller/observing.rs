//! Routes, metrics, logs and the OpenAPI document.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tucano_api::units::Timestamp;

use crate::{
    agent::{Agent, LINE_TIME},
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

const ASKED: &str = "asked for stream=both tail=50 follow=false";

/// A controller with two workers and a service of two processes, `hello-1` and `hello-2`.
async fn two_processes() -> (Ctl, [Agent; 2]) {
    let ctl = Ctl::start(&config(2, "", "[limits]\nlog_lines = 50")).await;
    let agents = [Agent::start(&ctl, 1).await, Agent::start(&ctl, 2).await];
    ctl.deploy_and("?wait=true", &image::config(2, ""), image::archive("one"))
        .await
        .expect(201);
    (ctl, agents)
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_streamed_from_the_nodes_with_the_process_as_prefix() {
    let (ctl, _agents) = two_processes().await;
    let one = ctl
        .get("/v1/processes/hello-2/logs?tail=7&stream=stderr")
        .await
        .expect(200);
    assert_eq!(
        one,
        "I am hello-2\nasked for stream=stderr tail=7 follow=false format=cri\n"
    );
    let all = ctl.get("/v1/services/hello/logs").await.expect(200);
    let of = |id| format!("{id} | I am {id}\n{id} | {ASKED} format=cri\n");
    assert_eq!(all, of("hello-1") + &of("hello-2"));
    ctl.get("/v1/processes/hello-9/logs")
        .await
        .refused(404, "not_found");
    ctl.get("/v1/services/nobody/logs")
        .await
        .refused(404, "not_found");
    ctl.get("/v1/services/hello/logs?since=yesterday")
        .await
        .refused(400, "invalid_query");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_have_times_and_streams_where_they_are_asked_for() {
    let (ctl, _agents) = two_processes().await;
    let asked = format!("{ASKED} format=cri since=600000ms");
    let query = "logs?since=10m&timestamps=true";
    let one = ctl.get(&format!("/v1/processes/hello-1/{query}")).await;
    assert_eq!(
        one.expect(200),
        format!("{LINE_TIME} I am hello-1\n- {asked}\n")
    );
    let all = ctl.get(&format!("/v1/services/hello/{query}")).await;
    let of = |id| format!("{id} | {LINE_TIME} I am {id}\n{id} | - {asked}\n");
    assert_eq!(all.expect(200), of("hello-1") + &of("hello-2"));
    let json = ctl.get("/v1/processes/hello-1/logs?format=json").await;
    assert_eq!(
        json.expect(200),
        format!(
            "{{\"process\":\"hello-1\",\"time\":\"{LINE_TIME}\",\"stream\":\"stdout\",\"line\":\"I am hello-1\"}}\n\
             {{\"process\":\"hello-1\",\"stream\":\"stderr\",\"line\":\"{ASKED} format=cri\"}}\n"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_an_earlier_version_is_asked_for_what_it_has() {
    let (ctl, agents) = two_processes().await;
    agents.iter().for_each(Agent::be_old);
    let all = ctl.get("/v1/services/hello/logs").await.expect(200);
    let of = |id| format!("{id} | I am {id}\n{id} | {ASKED}\n");
    assert_eq!(all, of("hello-1") + &of("hello-2"));
    for option in ["since=10m", "timestamps=true"] {
        ctl.get(&format!("/v1/processes/hello-1/logs?{option}"))
            .await
            .refused(409, "agent_too_old");
        let all = ctl.get(&format!("/v1/services/hello/logs?{option}")).await;
        let all = all.expect(200);
        let all = all.as_str().unwrap();
        assert_eq!(all.matches("upgrade it").count(), 2, "{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_a_service_begin_with_those_of_its_removed_processes() {
    let (ctl, agents) = two_processes().await;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let now = Timestamp(now.as_millis() as u64);
    for number in 100..130 {
        agents[number % 2].keep(&format!("hello-{number}"), now);
    }
    agents[0].keep("hello-99", Timestamp(now.0 - 3_600_000));
    // It was moved here, and moved away again.
    agents[1].keep("hello-1", now);
    agents[1].keep("other-98", now);
    let order = |text: &str| {
        let mut ids: Vec<_> = text
            .lines()
            .map(|line| line.split_once(" | ").unwrap().0.to_owned())
            .collect();
        ids.dedup();
        ids
    };
    let mut expected: Vec<_> = (110..130).map(|number| format!("hello-{number}")).collect();
    expected.extend(["hello-1", "hello-2"].map(str::to_owned));
    let all = ctl.get("/v1/services/hello/logs").await.expect(200);
    let all = all.as_str().unwrap();
    assert_eq!(order(all), expected);
    assert!(
        all.contains("output of 11 processes that were removed earlier is kept"),
        "{all}"
    );
    let recent = ctl
        .get("/v1/services/hello/logs?since=10m")
        .await
        .expect(200);
    assert!(
        recent.as_str().unwrap().contains("of 10 processes"),
        "{recent}"
    );
    // That of a service that does not exist any more, too.
    let gone = ctl.get("/v1/services/other/logs").await.expect(200);
    assert_eq!(order(gone.as_str().unwrap()), ["other-98"]);
    let followed = ctl
        .get("/v1/services/other/logs?follow=true")
        .await
        .expect(200);
    assert_eq!(order(followed.as_str().unwrap()), ["other-98"]);
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
        "delete /v1/secrets/{name}",
        "delete /v1/services/{name}",
        "delete /v1/volumes/{service}/{name}/{slot}",
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
        "get /v1/secrets",
        "get /v1/services",
        "get /v1/services/{name}",
        "get /v1/services/{name}/logs",
        "get /v1/services/{name}/revisions",
        "get /v1/state",
        "get /v1/volumes",
        "get /v1/volumes/{service}/{name}/{slot}/backups",
        "patch /v1/services/{name}",
        "post /v1/adoption",
        "post /v1/applications",
        "post /v1/images/describe",
        "delete /v1/jobs/{name}/runs/{number}",
        "get /v1/jobs",
        "get /v1/jobs/{name}",
        "get /v1/jobs/{name}/runs",
        "get /v1/jobs/{name}/runs/{number}",
        "get /v1/names",
        "post /v1/jobs/{name}/runs",
        "post /v1/balancer_certificates",
        "post /v1/certificates",
        "post /v1/config/reload",
        "post /v1/processes/{id}/exec",
        "post /v1/reports",
        "post /v1/secret_key",
        "post /v1/secret_values",
        "post /v1/services",
        "post /v1/services/{name}/exec",
        "post /v1/services/{name}/restart",
        "post /v1/services/{name}/rollback",
        "post /v1/volumes/{service}/{name}/{slot}/backup",
        "post /v1/volumes/{service}/{name}/{slot}/move",
        "post /v1/volumes/{service}/{name}/{slot}/restore",
        "put /v1/secrets/{name}",
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
