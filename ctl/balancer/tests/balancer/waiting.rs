//! Requests wait for routes and for processes, within limits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::sync::Semaphore;
use tucano_balancer::{limits::Limits, settings::Settings};

use crate::support::{
    Client, Origin, TestBed, ask, endpoint, hello, refusing_address, service, soon, wait_until,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 4\r\n\r\nbody";

async fn bed(
    services: Vec<tucano_api::routes::ServiceRoute>,
    change: impl FnOnce(&mut Limits),
) -> TestBed {
    TestBed::with(services, |settings: &mut Settings| {
        settings.limits.wait_timeout = Duration::from_secs(60);
        settings.limits.connect_total_timeout = Duration::from_secs(60);
        change(&mut settings.limits);
    })
    .await
}

async fn waiting(bed: &TestBed, count: usize) {
    wait_until("requests to wait", || {
        bed.balancer.waiting.requests() == count
    })
    .await;
}

async fn send(bed: &TestBed, request: &str) -> Client {
    let mut client = Client::connect(bed.address).await;
    client.send(request).await;
    client
}

#[tokio::test]
async fn requests_wait_for_the_first_process() {
    let origin = Origin::tagged("ok").await;
    let bed = bed(hello(&[]), |_| {}).await;
    let mut clients = [send(&bed, GET).await, send(&bed, POST).await];
    waiting(&bed, 2).await;
    bed.route(hello(&[&origin])).await;
    for client in &mut clients {
        assert_eq!(client.reply().await.body, "ok");
    }
    assert_eq!(origin.seen().len(), 2, "each was sent once");
    assert_eq!(bed.balancer.waiting.requests(), 0);
}

#[tokio::test]
async fn requests_wait_while_the_only_process_refuses_connections() {
    let (address, socket) = refusing_address();
    let bed = bed(vec![service("hello", vec![endpoint(0, address)])], |_| {}).await;
    let mut client = send(&bed, POST).await;
    waiting(&bed, 1).await;
    let _origin = Origin::on(socket.listen(16).unwrap(), |mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback")
            .await;
    });
    assert_eq!(client.reply().await.body, "back");
}

#[tokio::test]
async fn an_idempotent_request_survives_the_loss_of_the_only_process() {
    let hanging =
        Origin::serving(|mut peer| async move { while peer.request().await.is_some() {} }).await;
    let next = Origin::tagged("next").await;
    let bed = bed(hello(&[&hanging]), |_| {}).await;
    let mut client = send(&bed, GET).await;
    wait_until("the request to be in flight", || hanging.seen().len() == 1).await;
    bed.route(hello(&[])).await;
    waiting(&bed, 1).await;
    bed.route(hello(&[&next])).await;
    assert_eq!(client.reply().await.body, "next");
}

#[tokio::test]
async fn waiting_ends_after_its_timeout() {
    let (address, _guard) = refusing_address();
    let bed = bed(hello(&[]), |limits| {
        limits.wait_timeout = Duration::from_millis(100);
    })
    .await;
    let reply = ask(bed.address, GET).await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (503, Some("1"))
    );
    bed.route(vec![service("hello", vec![endpoint(0, address)])])
        .await;
    assert_eq!(ask(bed.address, GET).await.status, 502);
}

#[tokio::test]
async fn waiting_requests_are_limited_in_number() {
    let origin = Origin::tagged("ok").await;
    let bed = bed(hello(&[]), |limits| limits.max_waiting = 2).await;
    let mut clients = [send(&bed, GET).await, send(&bed, GET).await];
    waiting(&bed, 2).await;
    let reply = ask(bed.address, GET).await;
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("(--max-waiting)"), "{}", reply.body);
    bed.route(hello(&[&origin])).await;
    for client in &mut clients {
        assert_eq!(client.reply().await.body, "ok");
    }
}

#[tokio::test]
async fn waiting_requests_are_limited_in_memory() {
    let bed = bed(hello(&[]), |limits| {
        limits.waiting_bytes = bytesize::ByteSize::kib(4);
    })
    .await;
    let large = format!(
        "GET / HTTP/1.1\r\nHost: hello.localhost\r\nx: {}\r\n\r\n",
        "y".repeat(8000)
    );
    let reply = ask(bed.address, large).await;
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("(--waiting-bytes)"), "{}", reply.body);
}

#[tokio::test]
async fn a_waiting_request_is_dropped_with_its_client() {
    let origin = Origin::tagged("ok").await;
    for request in [GET, POST] {
        let bed = bed(hello(&[]), |_| {}).await;
        let client = send(&bed, request).await;
        // More than the balancer reads ahead: the end of the connection is behind it.
        let piped = send(&bed, &[request, GET].concat()).await;
        waiting(&bed, 2).await;
        drop((client, piped));
        waiting(&bed, 0).await;
        bed.route(hello(&[&origin])).await;
        assert_eq!(ask(bed.address, GET).await.body, "ok");
    }
    assert_eq!(origin.seen().len(), 2, "only the later requests arrived");
}

#[tokio::test]
async fn waiting_requests_are_released_in_batches() {
    const COUNT: usize = 30;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let go_on = Arc::new(Semaphore::new(0));
    let (current, peak, gate) = (now.clone(), most.clone(), go_on.clone());
    let origin = Origin::serving(move |mut peer| {
        let (current, peak, gate) = (current.clone(), peak.clone(), gate.clone());
        async move {
            while peer.request().await.is_some() {
                peak.fetch_max(current.fetch_add(1, SeqCst) + 1, SeqCst);
                gate.acquire().await.unwrap().forget();
                current.fetch_sub(1, SeqCst);
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
        }
    })
    .await;
    let bed = bed(hello(&[]), |limits| limits.waiting_batch = 1).await;
    let mut clients = Vec::new();
    for _ in 0..COUNT {
        clients.push(send(&bed, GET).await);
    }
    waiting(&bed, COUNT).await;
    go_on.add_permits(COUNT);
    bed.route(hello(&[&origin])).await;
    for client in &mut clients {
        assert_eq!(client.reply().await.body, "ok");
    }
    let peak = most.load(SeqCst);
    assert!(peak < COUNT / 2, "{peak} requests arrived at once");
}

#[tokio::test]
async fn requests_before_the_first_route_table_wait_for_it() {
    use clap::Parser;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ctl.sock");
    let settings = Settings::parse_from([
        "tucano_balancerd",
        "--listen",
        "127.0.0.1:0",
        "--follow",
        socket.to_str().unwrap(),
        "--routes-timeout",
        "60s",
    ]);
    let balancer = tucano_balancer::daemon::Balancer::build(&settings)
        .await
        .unwrap();
    let (address, plane) = (balancer.addresses()[0], balancer.plane().clone());
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(balancer.run(stop.clone()));
    let mut client = Client::connect(address).await;
    client.send(GET).await;
    wait_until("the request to wait", || plane.waiting.requests() == 1).await;
    let origin = Origin::tagged("ok").await;
    let controller = crate::support::Controller::start(socket);
    controller.publish(hello(&[&origin]));
    assert_eq!(soon("the answer", client.reply()).await.body, "ok");
    stop.cancel();
}
