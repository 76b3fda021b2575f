//! Several threads, each with its own listening socket, routes and pools; limits and counters hold over all of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet};

use crate::support::{
    Client, Origin, Reply, TestBed, ask, endpoint, hello, service, soon, wait_until,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";

async fn bed(origins: &[&Origin], threads: u16) -> TestBed {
    TestBed::with(hello(origins), |settings| settings.threads = Some(threads)).await
}

/// Clients with one answered request each, on every thread with near certainty.
async fn clients(bed: &TestBed, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(bed.address).await;
        client.send(GET).await;
        assert_eq!(client.reply().await.status, 200);
        clients.push(client);
    }
    clients
}

/// The answers to all of these, which the process gives one by one, in an order of its own.
async fn replies(clients: Vec<Client>, go_on: &Notify) -> Vec<Reply> {
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move { client.reply().await });
    }
    let mut replies = Vec::new();
    soon("all answers", async {
        while !tasks.is_empty() {
            go_on.notify_one();
            replies.extend(tasks.try_join_next().map(Result::unwrap));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_threads_follow_the_routes_and_are_counted_together() {
    let (a, b) = (Origin::tagged("a").await, Origin::tagged("b").await);
    let bed = bed(&[&a], 4).await;
    let mut all = clients(&bed, 40).await;
    bed.route(hello(&[&b])).await;
    for client in &mut all {
        client.send(GET).await;
        assert_eq!(client.reply().await.body, "b");
    }
    assert_eq!(bed.balancer.clients.connections(), 40);
    let metrics = || tucano_balancer::metrics::read(&bed.balancer);
    assert_eq!(metrics().accepted, 40);
    assert_eq!(metrics().services[0].responses, [0, 80, 0, 0, 0]);
    // A client has its answer a moment before that is counted.
    wait_until("no request to be in flight", || {
        metrics().services[0].in_flight == 0
    })
    .await;
    drop(all);
    wait_until("the connections to be gone", || {
        bed.balancer.clients.connections() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_limited_over_all_threads() {
    let origin = Origin::tagged("ok").await;
    let bed = TestBed::with(hello(&[&origin]), |settings| {
        settings.threads = Some(4);
        settings.limits.max_connections_per_address = 10;
    })
    .await;
    let go_on = Arc::new(Notify::new());
    let slow = Origin::tagged_on(&go_on, "slow").await;
    bed.route(hello(&[&slow])).await;
    let mut busy = Vec::new();
    for _ in 0..10 {
        let mut client = Client::connect(bed.address).await;
        client.send(GET).await;
        busy.push(client);
    }
    wait_until("requests in flight", || slow.seen().len() == 10).await;
    // Whichever thread takes it, the address has too many.
    for _ in 0..10 {
        assert_eq!(ask(bed.address, GET).await.status, 429);
    }
    for reply in replies(busy, &go_on).await {
        assert_eq!(reply.body, "slow");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_shared_by_all_threads() {
    let go_on = Arc::new(Notify::new());
    let origin = Origin::tagged_on(&go_on, "ok").await;
    let bed = TestBed::with(hello(&[&origin]), |settings| {
        settings.threads = Some(3);
        settings.limits.max_connections = 4;
    })
    .await;
    let mut tasks = JoinSet::new();
    for _ in 0..12 {
        let address = bed.address;
        tasks.spawn(async move { ask(address, GET).await.status });
    }
    let mut most = 0;
    soon("all to be answered", async {
        while !tasks.is_empty() {
            most = most.max(bed.balancer.clients.connections());
            go_on.notify_one();
            if let Some(status) = tasks.try_join_next() {
                assert_eq!(status.unwrap(), 200);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(most <= 4, "{most} connections at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_counts_the_requests_of_all_threads() {
    let go_on = Arc::new(Notify::new());
    let (old, new) = (
        Origin::tagged_on(&go_on, "old").await,
        Origin::tagged("new").await,
    );
    let bed = bed(&[&old], 4).await;
    let mut busy = Vec::new();
    for _ in 0..16 {
        let mut client = Client::connect(bed.address).await;
        client.send(GET).await;
        busy.push(client);
    }
    wait_until("requests in flight", || old.seen().len() == 16).await;
    let mut endpoints = vec![endpoint(0, old.address), endpoint(1, new.address)];
    endpoints[0].draining = true;
    bed.route(vec![service("hello", endpoints)]).await;
    let version = bed.balancer.table().version().unwrap().to_owned();
    let drained = || bed.controller.drained(&version);
    wait_until("a report", || drained().is_some()).await;
    assert_eq!(drained(), Some(Vec::new()));
    for reply in replies(busy, &go_on).await {
        assert_eq!(reply.body, "old");
    }
    wait_until("the process to be drained", || {
        drained() == Some(vec!["hello-0".to_owned()])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_on_all_threads_leave_a_lost_process() {
    let hanging =
        Origin::serving(|mut peer| async move { while peer.request().await.is_some() {} }).await;
    let good = Origin::tagged("good").await;
    let bed = bed(&[&hanging], 4).await;
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let mut client = Client::connect(bed.address).await;
        client.send(GET).await;
        waiting.push(client);
    }
    wait_until("requests in flight", || hanging.seen().len() == 16).await;
    bed.route(vec![service("hello", vec![endpoint(7, good.address)])])
        .await;
    for client in &mut waiting {
        assert_eq!(client.reply().await.body, "good");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_change_under_load_on_all_threads_and_no_request_fails() {
    let origins = [Origin::tagged("ok").await, Origin::tagged("ok").await];
    let bed = Arc::new(bed(&origins.each_ref(), 3).await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for _ in 0..12 {
        let (address, stop) = (bed.address, stop.clone());
        tasks.spawn(async move {
            let mut client = Client::connect(address).await;
            while !stop.load(Relaxed) {
                client.send(GET).await;
                let reply = client.reply().await;
                assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
            }
        });
    }
    for round in 0..20 {
        let mut services = hello(&origins.each_ref());
        services[0].endpoints[round % 2].draining = true;
        bed.route(services.clone()).await;
        services[0].endpoints.remove(round % 2);
        bed.route(services).await;
        bed.route(hello(&origins.each_ref())).await;
    }
    stop.store(true, Relaxed);
    tasks.join_all().await;
}
