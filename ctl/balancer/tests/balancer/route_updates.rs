use std::time::Duration;

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tucano_api::routes::RouteTable;
use tucano_balancer::{daemon::Balancer, settings::Settings};

use crate::support::{Client, Origin, TestBed, get, hello, soon, wait_until};

#[tokio::test]
async fn changes_are_polled_by_version() {
    let a = Origin::tagged("a").await;
    let bed = TestBed::new(hello(&[&a])).await;
    wait_until("a poll without change, and one more", || {
        let asked = bed.controller.asked();
        asked
            .iter()
            .filter(|query| *query == "/v1/routes?after=v%201%C3%A9%26")
            .count()
            >= 2
    })
    .await;
    assert_eq!(bed.get("/").await.body, "a");
}

#[tokio::test]
async fn the_last_routes_stay_in_force_while_the_controller_is_down() {
    let (a, b) = (Origin::tagged("a").await, Origin::tagged("b").await);
    let mut bed = TestBed::new(hello(&[&a])).await;
    bed.controller.kill();
    assert_eq!(bed.bodies(3).await.concat(), "aaa");
    bed.controller.restart();
    let mut services = hello(&[&b]);
    services[0].endpoints[0].process = "hello-9".parse().unwrap();
    bed.route(services).await;
    assert_eq!(bed.get("/").await.body, "b");
}

#[tokio::test]
async fn a_balancer_started_without_a_controller_serves_the_cached_routes() {
    let a = Origin::tagged("a").await;
    let mut bed = TestBed::new(hello(&[&a])).await;
    let kept = bed.directory.path().join("routes.json");
    wait_until("the routes to be kept", || kept.exists()).await;
    bed.controller.kill();
    let (second, stop) = start_again(&bed).await;
    assert_eq!(get(second, "hello.localhost", "/").await.body, "a");
    stop.cancel();
    bed.controller.restart();
}

#[tokio::test]
async fn damaged_cached_routes_are_ignored() {
    let bed = TestBed::new(hello(&[])).await;
    let kept = bed.directory.path().join("routes.json");
    wait_until("the routes to be kept", || kept.exists()).await;
    bed.controller.kill();
    std::fs::write(&kept, "{\"version\": 7").unwrap();
    let (second, _stop) = start_again(&bed).await;
    let reply = get(second, "hello.localhost", "/").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (503, "the balancer has no routes yet\n")
    );
    assert_eq!(reply.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_table_over_the_limit_is_ignored() {
    let a = Origin::tagged("a").await;
    let bed = TestBed::with(hello(&[&a]), |settings| {
        settings.limits.table_bytes = bytesize::ByteSize::kib(2);
    })
    .await;
    let many: Vec<_> = (0..100).flat_map(|_| hello(&[])).collect();
    let asked = bed.controller.asked().len();
    bed.controller.publish(many);
    wait_until("the large table to be asked for again", || {
        bed.controller.asked().len() > asked + 2
    })
    .await;
    assert_eq!(bed.get("/").await.body, "a");
}

#[tokio::test]
async fn invalid_answers_of_the_controller_are_ignored() {
    let a = Origin::tagged("a").await;
    let bed = TestBed::new(hello(&[&a])).await;
    bed.controller.kill();
    std::fs::remove_file(&bed.controller.socket).unwrap();
    let nonsense = UnixListener::bind(&bed.controller.socket).unwrap();
    let mut answered = 0;
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"ver\":1}",
        "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        "what?\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{",
    ];
    while let Some(answer) = answers.get(answered).copied() {
        let (stream, _) = soon("another poll", nonsense.accept()).await.unwrap();
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let mut head = [0; 1024];
        use std::io::{Read, Write};
        let is_poll = tokio::task::spawn_blocking(move || {
            let len = (&stream).read(&mut head).unwrap();
            // A report gets the same kind of answer; the balancer may have given it up.
            (&stream).write_all(answer.as_bytes()).ok();
            head[..len].starts_with(b"GET /v1/routes?after=")
        })
        .await
        .unwrap();
        answered += usize::from(is_poll);
    }
    assert_eq!(bed.get("/").await.body, "a");
}

#[tokio::test]
async fn open_connections_use_new_routes() {
    let (a, b) = (Origin::tagged("a").await, Origin::tagged("b").await);
    let bed = TestBed::new(hello(&[&a])).await;
    let mut client = Client::connect(bed.address).await;
    let request = "GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";
    client.send(request).await;
    assert_eq!(client.reply().await.body, "a");
    bed.route(hello(&[&b])).await;
    client.send(request).await;
    assert_eq!(client.reply().await.body, "b");
}

async fn start_again(bed: &TestBed) -> (std::net::SocketAddr, CancellationToken) {
    use clap::Parser;
    let file = |name: &str| bed.directory.path().join(name).display().to_string();
    let settings = Settings::parse_from([
        "tucano_balancerd",
        "--listen",
        "127.0.0.1:0",
        "--follow",
        &file("ctl.sock"),
        "--routes",
        &file("routes.json"),
    ]);
    let balancer = Balancer::build(&settings).await.unwrap();
    let address = balancer.addresses()[0];
    let stop = CancellationToken::new();
    tokio::spawn(balancer.run(stop.clone()));
    (address, stop)
}

#[tokio::test]
async fn pooled_connections_to_a_removed_process_are_closed() {
    let closed = std::sync::Arc::new(tokio::sync::Notify::new());
    let tell = closed.clone();
    let origin = Origin::serving(move |mut peer| {
        let tell = tell.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await;
            peer.until_closed().await;
            tell.notify_one();
        }
    })
    .await;
    let bed = TestBed::with(hello(&[&origin]), |settings| {
        settings.limits.upstream_idle_timeout = Duration::from_secs(600);
    })
    .await;
    assert_eq!(bed.get("/").await.status, 200);
    bed.route(hello(&[])).await;
    soon("the kept connection to be closed", closed.notified()).await;
}

#[test]
fn the_cached_file_is_the_controllers_table() {
    let text = r#"{"version":"7","services":[{"service":"hello","hosts":["hello.localhost"],"endpoints":[]}]}"#;
    let table: RouteTable = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&table).unwrap(), text);
}
