//! What is reported of draining processes: that nothing is in flight to them, and not a moment too early.

use std::sync::Arc;

use tokio::sync::Notify;
use tucano_api::routes::ServiceRoute;

use crate::support::{Client, Origin, TestBed, endpoint, hello, service, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";

/// The routes after a deploy: the first process drains, the second one has taken over.
fn replaced(old: &Origin, new: &Origin) -> Vec<ServiceRoute> {
    let mut endpoints = vec![endpoint(0, old.address), endpoint(1, new.address)];
    endpoints[0].draining = true;
    vec![service("hello", endpoints)]
}

/// A deploy while a request is in flight; returns the version of the new table.
async fn deploy_while_busy(bed: &TestBed, old: &Origin, new: &Origin) -> String {
    bed.route(replaced(old, new)).await;
    let version = bed.balancer.table().version().unwrap().to_owned();
    wait_until("a report of the new table", || {
        bed.controller.drained(&version).is_some()
    })
    .await;
    assert_eq!(bed.controller.drained(&version), Some(Vec::new()));
    // New requests go to the new process, and do not prolong the drain.
    assert_eq!(bed.bodies(3).await.concat(), "newnewnew");
    assert_eq!(bed.controller.drained(&version), Some(Vec::new()));
    version
}

async fn until_drained(bed: &TestBed, version: &str) {
    wait_until("the process to be drained", || {
        bed.controller.drained(version) == Some(vec!["hello-0".to_owned()])
    })
    .await;
}

#[tokio::test]
async fn an_idle_process_is_drained_at_once() {
    let (old, new) = (Origin::tagged("old").await, Origin::tagged("new").await);
    let bed = TestBed::new(hello(&[&old])).await;
    // Neither an idle connection of a client nor a pooled one to the process holds it up.
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    assert_eq!(client.reply().await.body, "old");
    bed.route(replaced(&old, &new)).await;
    let version = bed.balancer.table().version().unwrap().to_owned();
    until_drained(&bed, &version).await;
    client.send(GET).await;
    assert_eq!(client.reply().await.body, "new");
}

#[tokio::test]
async fn a_request_without_response_keeps_its_process() {
    let go_on = Arc::new(Notify::new());
    let (old, new) = (
        Origin::tagged_on(&go_on, "old").await,
        Origin::tagged("new").await,
    );
    let bed = TestBed::new(hello(&[&old])).await;
    let mut client = Client::connect(bed.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 1\r\n\r\nx")
        .await;
    wait_until("the request to arrive", || old.seen().len() == 1).await;
    let version = deploy_while_busy(&bed, &old, &new).await;
    go_on.notify_one();
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "old"));
    until_drained(&bed, &version).await;
}

#[tokio::test]
async fn a_body_that_is_being_sent_keeps_its_process() {
    let (old, new) = (Origin::tagged("old").await, Origin::tagged("new").await);
    let bed = TestBed::new(hello(&[&old])).await;
    let mut client = Client::connect(bed.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 6\r\n\r\nabc")
        .await;
    let backend = bed.balancer.table().backends().next().unwrap().clone();
    wait_until("the request to be in flight", || backend.is_used()).await;
    let version = deploy_while_busy(&bed, &old, &new).await;
    client.send("def").await;
    assert_eq!(client.reply().await.body, "old");
    until_drained(&bed, &version).await;
    assert!(old.seen()[0].ends_with("abcdef"));
}

#[tokio::test]
async fn a_response_that_is_not_read_keeps_its_process() {
    const LENGTH: usize = 64 << 20;
    let new = Origin::tagged("new").await;
    let old = Origin::serving(|mut peer| async move {
        peer.request().await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        peer.send(head).await;
        for _ in 0..LENGTH >> 20 {
            peer.send(vec![b'x'; 1 << 20]).await;
        }
    })
    .await;
    let bed = TestBed::new(hello(&[&old])).await;
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    client.head().await;
    let version = deploy_while_busy(&bed, &old, &new).await;
    client.exactly(LENGTH).await;
    until_drained(&bed, &version).await;
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_process() {
    let new = Origin::tagged("new").await;
    let old = Origin::serving(|mut peer| async move {
        peer.request().await;
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await;
        peer.until_closed().await;
    })
    .await;
    let bed = TestBed::new(hello(&[&old])).await;
    let mut client = Client::connect(bed.address).await;
    client
        .send("GET / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    client.head().await;
    let version = deploy_while_busy(&bed, &old, &new).await;
    drop(client);
    until_drained(&bed, &version).await;
}

#[tokio::test]
async fn a_client_that_goes_away_keeps_no_process() {
    let go_on = Arc::new(Notify::new());
    let (old, new) = (
        Origin::tagged_on(&go_on, "old").await,
        Origin::tagged("new").await,
    );
    let bed = TestBed::new(hello(&[&old])).await;
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    wait_until("the request to arrive", || old.seen().len() == 1).await;
    let version = deploy_while_busy(&bed, &old, &new).await;
    drop(client);
    until_drained(&bed, &version).await;
}

#[tokio::test]
async fn a_process_that_returns_to_the_table_is_not_drained_before_its_earlier_requests() {
    let go_on = Arc::new(Notify::new());
    let new = Origin::tagged("new").await;
    let old = Origin::serving({
        let go_on = go_on.clone();
        move |mut peer| {
            let go_on = go_on.clone();
            async move {
                peer.request().await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nold")
                    .await;
                go_on.notified().await;
                peer.send("old").await;
            }
        }
    })
    .await;
    let bed = TestBed::new(hello(&[&old])).await;
    let mut client = Client::connect(bed.address).await;
    client.send(GET).await;
    client.head().await;
    // A probe failed: the process leaves the table, and its response goes on.
    bed.route(vec![service("hello", vec![endpoint(1, new.address)])])
        .await;
    let version = deploy_while_busy(&bed, &old, &new).await;
    go_on.notify_one();
    assert_eq!(client.exactly(6).await, b"oldold");
    until_drained(&bed, &version).await;
}

#[tokio::test]
async fn a_controller_of_an_earlier_version_is_followed_all_the_same() {
    let (old, new) = (Origin::tagged("old").await, Origin::tagged("new").await);
    let bed = TestBed::new(hello(&[&old])).await;
    bed.controller.be_old();
    bed.route(replaced(&old, &new)).await;
    assert_eq!(bed.get("/").await.body, "new");
}

#[tokio::test]
async fn counters_are_reported() {
    let a = Origin::tagged("a").await;
    let bed = TestBed::new(hello(&[&a])).await;
    bed.bodies(2).await;
    // A new table makes a new report.
    bed.route(hello(&[&a])).await;
    wait_until("the counters", || {
        let reports = bed.controller.reports();
        let Some(last) = reports.last() else {
            return false;
        };
        let service = last.metrics.services.first();
        last.metrics.accepted == 2 && service.is_some_and(|it| it.responses == [0, 2, 0, 0, 0])
    })
    .await;
}
