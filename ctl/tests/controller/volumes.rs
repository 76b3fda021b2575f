//! Volumes of services: shown, kept, removed.

use reqwest::Method;
use serde_json::Value;

use crate::{
    agent::Agent,
    ctl::{Answer, Ctl, config},
    image,
};

fn with_volume(slots: u32, size: &str) -> String {
    let volume = format!("[[volume]]\nname = \"data\"\npath = \"/data\"\nsize = \"{size}\"");
    image::config(slots, &volume)
}

async fn deploy(ctl: &Ctl, config: &str) -> Answer {
    ctl.deploy_and("?wait=true", config, image::archive("one"))
        .await
}

/// A controller, its worker, and a service of two slots.
async fn two_slots() -> (Ctl, Agent) {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    deploy(&ctl, &with_volume(2, "64MiB")).await.expect(201);
    (ctl, agent)
}

async fn volumes(ctl: &Ctl) -> Vec<Value> {
    let all = ctl.get("/v1/volumes").await.expect(200);
    all.as_array().unwrap().clone()
}

/// Waits until the volumes are in these states.
async fn until(ctl: &mut Ctl, states: &[&str]) -> Vec<Value> {
    ctl.eventually(&format!("{states:?}"), async |ctl| {
        let all = volumes(ctl).await;
        let found: Vec<&str> = all.iter().map(|it| it["state"].as_str().unwrap()).collect();
        (found == states).then_some(all)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_shown_and_outlive_the_controller_and_their_service() {
    let (mut ctl, agent) = two_slots().await;
    let all = until(&mut ctl, &["in_use", "in_use"]).await;
    assert_eq!(all[0]["id"], "hello/data/1");
    assert_eq!(all[0]["instance"], 1);
    assert_eq!(all[0]["node"], "w1");
    assert_eq!(all[0]["size"], 64 << 20);
    assert_eq!(all[0]["used"], 4096);
    assert_eq!(all[0]["enforcement"], "loop_file");
    assert_eq!(all[0]["process"], "hello-1");
    assert_eq!(all[0]["configured"], true);
    ctl.kill_9().await;
    drop(agent);
    ctl.start_again().await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.eventually("the next agent's processes", async |_| {
        (agent.processes().len() == 2).then_some(())
    })
    .await;
    until(&mut ctl, &["in_use", "in_use"]).await;
    ctl.delete("/v1/services/hello").await.expect(200);
    let all = until(&mut ctl, &["idle", "idle"]).await;
    assert_eq!(all[0]["configured"], false);
    deploy(&ctl, &with_volume(2, "64MiB")).await.expect(201);
    let all = until(&mut ctl, &["in_use", "in_use"]).await;
    assert_eq!(all[1]["instance"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_removed_when_nothing_needs_it() {
    let (mut ctl, _agent) = two_slots().await;
    let in_use = ctl.delete("/v1/volumes/hello/data/2").await;
    let error = in_use.refused(409, "volume_in_use");
    assert!(error.contains("in use by process hello-2"), "{error}");
    for odd in ["hello/data/3", "hello/data/0", "hello/data/x", "no/data/1"] {
        let answer = ctl.delete(&format!("/v1/volumes/{odd}")).await;
        answer.refused(404, "not_found");
    }
    for odd in ["hello/..%2Fdata/1", "hello/data", "%00/data/1"] {
        let answer = ctl.delete(&format!("/v1/volumes/{odd}")).await;
        assert!([400, 404, 405].contains(&answer.status.as_u16()), "{odd}");
    }
    let scale = serde_json::json!({ "concurrency": 1 });
    ctl.request(Method::PATCH, "/v1/services/hello", &scale)
        .await
        .expect(200);
    until(&mut ctl, &["in_use", "idle"]).await;
    let removed = ctl.eventually("the process is gone", async |ctl| {
        let answer = ctl.delete("/v1/volumes/hello/data/2").await;
        (answer.status == 200).then_some(())
    });
    removed.await;
    until(&mut ctl, &["in_use"]).await;
    assert!(ctl.log().contains("remove_volume by local"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_removed_with_its_volumes_only_where_that_is_asked_for() {
    let (mut ctl, _agent) = two_slots().await;
    let odd = ctl.delete("/v1/services/hello?volumes=perhaps").await;
    odd.refused(400, "invalid_query");
    ctl.delete("/v1/services/hello?volumes=true")
        .await
        .expect(200);
    until(&mut ctl, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_grows_and_does_not_shrink() {
    let (mut ctl, _agent) = two_slots().await;
    deploy(&ctl, &with_volume(2, "128MiB")).await.expect(200);
    let all = until(&mut ctl, &["in_use", "in_use"]).await;
    assert_eq!(all[0]["size"], 128 << 20);
    assert_eq!(all[0]["process"], "hello-1", "it is not replaced");
    let smaller = deploy(&ctl, &with_volume(2, "64MiB")).await;
    let error = smaller.refused(409, "limit_in_use");
    assert!(
        error.contains("volume hello/data/1 has 128 MiB, and volumes do not shrink to 64 MiB"),
        "{error}"
    );
    let too_large = deploy(&ctl, &with_volume(2, "16GiB")).await;
    let error = too_large.refused(409, "limit_in_use");
    assert!(
        error.contains("has room for 7.8 GiB more of 8 GiB"),
        "{error}"
    );
}
