//! Commands in containers, proxied by the controller.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tucano_api::agent::ProcessState;

use crate::{
    agent::Agent,
    ctl::{Ctl, config},
    image,
};

const HELLO: &str = "/v1/services/hello/exec";

async fn upgrade(ctl: &Ctl, path: &str) -> reqwest::Response {
    let request = ctl.http().post(ctl.url(path));
    let request = request.header("Connection", "Upgrade");
    request
        .header("Upgrade", "tucano-exec")
        .send()
        .await
        .unwrap()
}

async fn refusal(answer: reqwest::Response) -> (u16, String) {
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The fake agent's first line: the process id.
async fn greeting(connection: &mut reqwest::Upgraded) -> String {
    let mut greeting = Vec::new();
    while !greeting.ends_with(b"\n") {
        greeting.push(connection.read_u8().await.unwrap());
    }
    String::from_utf8(greeting).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_proxied_to_the_chosen_process() {
    let mut ctl = Ctl::start(&config(2, "", "")).await;
    let agents = [Agent::start(&ctl, 1).await, Agent::start(&ctl, 2).await];
    ctl.deploy_and("?wait=true", &image::config(2, ""), image::archive("one"))
        .await
        .expect(201);
    let answer = upgrade(&ctl, "/v1/processes/hello-2/exec").await;
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["tucano-process"], "hello-2");
    let mut connection = answer.upgrade().await.unwrap();
    assert_eq!(greeting(&mut connection).await, "hello-2\n");
    let sent = vec![7; 3 << 20];
    let (mut from, mut to) = tokio::io::split(connection);
    let writing = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut echoed = Vec::new();
    let (_, read) = tokio::join!(writing, from.read_to_end(&mut echoed));
    read.unwrap();
    assert!(echoed == sent, "{} bytes came back", echoed.len());
    // A service's session goes to a healthy process.
    agents[0].report_as(|_, report| report.state = ProcessState::BackOff);
    ctl.eventually("the failure is known", async |ctl| {
        let mut connection = upgrade(ctl, HELLO).await.upgrade().await.unwrap();
        (greeting(&mut connection).await == "hello-2\n").then_some(())
    })
    .await;
    agents[1].report_as(|_, report| report.state = ProcessState::BackOff);
    ctl.eventually("none runs", async |ctl| {
        let (status, text) = refusal(upgrade(ctl, HELLO).await).await;
        (status == 409 && text.contains("tucano ps hello")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_limited_and_need_upgrade_headers() {
    let mut ctl = Ctl::start(&config(1, "", "[limits]\nsessions = 1")).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.deploy_and("?wait=true", &image::config(1, ""), image::archive("one"))
        .await
        .expect(201);
    for (path, status) in [
        ("/v1/services/nobody/exec", 404),
        ("/v1/processes/hello-9/exec", 404),
    ] {
        assert_eq!(refusal(upgrade(&ctl, path).await).await.0, status, "{path}");
    }
    let plain = ctl.http().post(ctl.url(HELLO));
    ctl.send(plain).await.refused(426, "upgrade_required");
    let first = upgrade(&ctl, HELLO).await.upgrade().await.unwrap();
    let (status, text) = refusal(upgrade(&ctl, HELLO).await).await;
    assert_eq!(status, 429);
    assert!(text.contains("limits.sessions"), "{text}");
    drop(first);
    ctl.eventually("its place is free again", async |ctl| {
        (upgrade(ctl, HELLO).await.status() == 101).then_some(())
    })
    .await;
    drop(agent);
    ctl.eventually("its agent is gone", async |ctl| {
        (refusal(upgrade(ctl, HELLO).await).await.0 == 502).then_some(())
    })
    .await;
}
