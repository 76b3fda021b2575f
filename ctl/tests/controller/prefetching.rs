//! Agents can fetch announced layers of an image during its upload; layers of an archive are not visible to others yet.

use std::convert::Infallible;

use futures_util::StreamExt;
use reqwest::{
    Body,
    multipart::{Form, Part},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tucano_image_builder::layout::sha256;

use crate::{
    agent::Agent,
    ctl::{Ctl, config},
    image,
};

/// The end of the archive, which is sent after the announcement.
const LAST_BYTES: usize = 1024;

#[tokio::test(flavor = "multi_thread")]
async fn agents_fetch_layers_during_the_upload() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.eventually("the agent to be known", async |_| agent.answered())
        .await;
    let archive = image::large_archive(300_000);
    let (pieces, body) = mpsc::channel(1);
    let stream = ReceiverStream::new(body).map(Ok::<Vec<u8>, Infallible>);
    let image = Part::stream(Body::wrap_stream(stream)).file_name("hello.tar");
    let text = Part::text(image::config(1, "")).file_name("hello.toml");
    let form = Form::new().part("config", text).part("image", image);
    let request = ctl.http().post(ctl.url("/v1/services")).multipart(form);
    let deploy = tokio::spawn(request.send());
    let (first, last) = archive.split_at(archive.len() - LAST_BYTES);
    pieces.send(first.to_vec()).await.unwrap();
    let hint = ctl
        .eventually("the agent to hear of the layer", async |_| {
            agent.hints().into_iter().next()
        })
        .await;
    let blob = format!("/v2/tucano/images/blobs/{}", hint.digest);
    let url = ctl.url(&blob);
    let seen = ctl.http().head(&url).send().await.unwrap();
    assert_eq!(seen.status(), 404);
    let fetched = ctl.http().get(&url).send().await.unwrap();
    let fetched = fetched.error_for_status().unwrap().bytes().await.unwrap();
    assert_eq!(sha256(&fetched), hint.digest.to_string());
    assert_eq!(fetched.len() as u64, hint.bytes);
    assert!(ctl.blobs().is_empty());
    pieces.send(last.to_vec()).await.unwrap();
    drop(pieces);
    assert_eq!(deploy.await.unwrap().unwrap().status(), 201);
    assert_eq!(agent.hints(), [hint]);
    // A second upload announces nothing: the store has the blobs.
    ctl.deploy(&image::config(1, ""), archive).await.expect(200);
    assert_eq!(agent.hints().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_not_announced_to_more_agents_than_configured() {
    let mut ctl = Ctl::start(&config(1, "", "[limits]\nprefetching_agents = 0")).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.eventually("the agent to be known", async |_| agent.answered())
        .await;
    let (config, archive) = (image::config(1, ""), image::large_archive(300_000));
    ctl.deploy_and("?wait=true", &config, archive)
        .await
        .expect(201);
    assert!(agent.hints().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_an_image_that_cannot_run_are_withdrawn() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.eventually("the agent to be known", async |_| agent.answered())
        .await;
    let unknown_user = image::config(1, "user = \"who\"");
    let archive = image::large_archive(300_000);
    let refused = ctl.deploy(&unknown_user, archive.clone()).await.expect(422);
    assert!(refused.to_string().contains("no user"), "{refused}");
    // By the refused check and by the refused upload, each in its own time.
    ctl.eventually("the layer to be withdrawn", async |_| {
        (agent.withdrawn().len() == 2).then_some(())
    })
    .await;
    let (withdrawn, hints) = (agent.withdrawn(), agent.hints());
    assert!(withdrawn.iter().all(|blob| *blob == hints[0].digest));
    // The image can run with another configuration, and is announced again.
    ctl.deploy(&image::config(1, ""), archive).await.expect(201);
    ctl.eventually("the layer to be announced again", async |_| {
        (agent.hints().len() == 2).then_some(())
    })
    .await;
    assert_eq!(agent.withdrawn(), withdrawn);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_pushed_for_a_deploy_are_announced() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.eventually("the agent to be known", async |_| agent.answered())
        .await;
    // Blobs of other repositories and small blobs are not announced.
    push(&ctl, "elsewhere", vec![1; 300_000]).await;
    push(&ctl, "tucano/images", vec![2; 100]).await;
    let layer = vec![3; 300_000];
    push(&ctl, "tucano/images", layer.clone()).await;
    let hint = ctl
        .eventually("the agent to hear of the layer", async |_| {
            agent.hints().into_iter().next()
        })
        .await;
    assert_eq!(hint.digest.to_string(), sha256(&layer));
    assert_eq!(hint.bytes, 300_000);
    assert_eq!(agent.hints().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_blobs_are_not_announced_to_more_agents_than_configured() {
    let text = config(1, "", "[limits]\nprefetching_agents = 0");
    let mut ctl = Ctl::start(&text).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.eventually("the agent to be known", async |_| agent.answered())
        .await;
    push(&ctl, "tucano/images", vec![3; 300_000]).await;
    ctl.deploy_and("?wait=true", &image::config(1, ""), image::archive("x"))
        .await
        .expect(201);
    assert!(agent.hints().is_empty());
}

async fn push(ctl: &Ctl, repository: &str, blob: Vec<u8>) {
    let digest = sha256(&blob);
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    let pushed = ctl.http().post(ctl.url(&path)).body(blob).send().await;
    assert_eq!(pushed.unwrap().status(), 201);
}
