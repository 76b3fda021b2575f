//! The audit record: who changed what, in the controller's log.

use reqwest::Method;
use serde_json::json;

use crate::{
    agent::Agent,
    ctl::{Ctl, config},
    image,
};

/// The audit events of the log that contain all of these.
fn events(ctl: &Ctl, parts: &[&str]) -> usize {
    let log = ctl.log();
    let events = log.lines().filter(|line| line.contains("audit"));
    let matching = events.filter(|line| parts.iter().all(|part| line.contains(part)));
    matching.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_recorded_with_its_result() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let _agent = Agent::start(&ctl, 1).await;
    ctl.deploy_and("?wait=true", &image::config(1, ""), image::archive("one"))
        .await
        .expect(201);
    let change = json!({ "concurrency": 2 });
    ctl.request(Method::PATCH, "/v1/services/hello", &change)
        .await
        .expect(200);
    ctl.request(Method::PATCH, "/v1/services/absent", &change)
        .await
        .expect(404);
    ctl.get("/v1/services").await.expect(200);
    ctl.request(Method::DELETE, "/v1/services/hello", &json!({}))
        .await
        .expect(200);
    ctl.eventually("the removal is recorded", async |ctl| {
        (events(ctl, &["remove", "/v1/services/hello", "done"]) == 1).then_some(())
    })
    .await;
    for parts in [
        &["deploy", "local", "127.0.0.1:", "done", "hello revision 1"],
        &["change", "local", "127.0.0.1:", "done", "hello revision"],
        &[
            "change",
            "local",
            "127.0.0.1:",
            "refused",
            "/v1/services/absent",
        ],
    ] {
        assert_eq!(events(&ctl, parts), 1, "{parts:?}: {}", ctl.log());
    }
    assert_eq!(events(&ctl, &["GET"]), 0, "{}", ctl.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request_is_recorded_and_its_token_is_not() {
    let mut ctl = Ctl::start(&config(1, "token = \"the-right-token-of-a-test\"", "")).await;
    let request = ctl.http().delete(ctl.url("/v1/services/hello"));
    let answer = ctl.send(request.bearer_auth("a-wrong-token")).await;
    assert_eq!(answer.status, 401);
    ctl.eventually("the denial is recorded", async |ctl| {
        (events(ctl, &["remove", "nobody", "denied"]) == 1).then_some(())
    })
    .await;
    assert!(!ctl.log().contains("a-wrong-token"), "{}", ctl.log());
}
