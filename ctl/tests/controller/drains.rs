//! Deploys under requests, with a real balancer: what is in flight is finished, and nothing else is waited for.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

use crate::{
    agent::Agent,
    balancer::{is_there, supervising},
    ctl::Ctl,
    image,
};

/// A controller with a balancer, and a worker whose processes answer: GET at once, POST after a notification.
struct Cluster {
    ctl: Ctl,
    agent: Agent,
    go_on: Arc<Notify>,
    /// Bodies of the POST requests that have arrived.
    posts: Arc<Mutex<usize>>,
    serving: Vec<JoinHandle<()>>,
    balancer: SocketAddr,
}

impl Cluster {
    /// With this line in its configuration.
    async fn start(top: &str) -> Self {
        let mut ctl = Ctl::start(&format!("{top}\n{}", supervising("127.0.0.1:0"))).await;
        let agent = Agent::start(&ctl, 1).await;
        let (go_on, posts) = (Arc::default(), Arc::default());
        let mut serving = Vec::new();
        let mut ports = Vec::new();
        for number in 1..=2 {
            let listener = TcpListener::bind("127.0.0.11:0").await.unwrap();
            ports.push(listener.local_addr().unwrap().port());
            let (go_on, posts) = (Arc::clone(&go_on), Arc::clone(&posts));
            serving.push(tokio::spawn(serve(listener, number, go_on, posts)));
        }
        agent.report_as(move |process, report| {
            let number = usize::try_from(process.id.number()).unwrap();
            report.node_port = ports.get(number - 1).copied();
        });
        let balancer = ctl
            .eventually("the balancer's address", async |ctl| {
                let log = ctl.log();
                let (_, rest) = log.split_once("listening address=")?;
                rest.split_whitespace().next()?.parse().ok()
            })
            .await;
        let cluster = Self {
            ctl,
            agent,
            go_on,
            posts,
            serving,
            balancer,
        };
        cluster.deploy("one", "", 201).await;
        // The balancer may get the routes a moment later.
        while !cluster.get().await.ends_with("process 1") {}
        cluster
    }

    async fn deploy(&self, image: &str, more: &str, status: u16) {
        let (config, image) = (image::config(1, more), image::archive(image));
        let deployed = self.ctl.deploy_and("?wait=true", &config, image).await;
        deployed.expect(status);
    }

    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.balancer).await.unwrap();
        let request = format!(
            "{request} / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// A POST that has arrived at a process.
    async fn post(&mut self) -> TcpStream {
        let stream = self.send("POST").await;
        let posts = self.posts.clone();
        let arrived = async |_: &mut Ctl| (*posts.lock().unwrap() > 0).then_some(());
        self.ctl.eventually("the POST to arrive", arrived).await;
        stream
    }

    async fn get(&self) -> String {
        answer(self.send("GET").await).await
    }

    async fn until_processes_are(&mut self, wanted: &[&str]) {
        let agent = &self.agent;
        let are = async |_: &mut Ctl| (agent.processes() == wanted).then_some(());
        self.ctl.eventually("the processes", are).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
        // The balancer outlives a controller that is killed.
        self.ctl.terminate();
    }
}

async fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn serve(listener: TcpListener, number: usize, go_on: Arc<Notify>, posts: Arc<Mutex<usize>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (go_on, posts) = (go_on.clone(), posts.clone());
        tokio::spawn(async move {
            let mut request = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut request).await {
                if request[..length].starts_with(b"POST") {
                    *posts.lock().unwrap() += 1;
                    go_on.notified().await;
                }
                let body = format!("process {number}");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                // The balancer may have gone.
                stream.write_all((head + &body).as_bytes()).await.ok();
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_request_is_answered_through_a_deploy() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::start("drain = \"1h\"").await;
    let post = cluster.post().await;
    cluster.deploy("two", "", 200).await;
    assert!(cluster.get().await.ends_with("process 2"));
    cluster.until_processes_are(&["hello-1", "hello-2"]).await;
    cluster.go_on.notify_one();
    let answer = answer(post).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("process 1"), "{answer}");
    cluster.until_processes_are(&["hello-2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_service_is_replaced_without_waiting_for_the_drain_time() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::start("drain = \"1h\"").await;
    assert!(cluster.get().await.ends_with("process 1"));
    cluster.deploy("two", "", 200).await;
    cluster.until_processes_are(&["hello-2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_services_own_drain_time_ends_a_request_that_takes_too_long() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::start("drain = \"1h\"").await;
    let _post = cluster.post().await;
    cluster.deploy("two", "drain = \"300ms\"\n", 200).await;
    cluster.until_processes_are(&["hello-2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_balancers_counters_are_among_the_metrics() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::start("").await;
    assert!(cluster.get().await.ends_with("process 1"));
    let wanted = [
        "tucano_balancer_responses_total{balancer=\"",
        "\",service=\"hello\",status=\"2xx\"} 2",
    ];
    let shown = async |ctl: &mut Ctl| {
        let page = ctl.get("/metrics").await.expect(200);
        let mut lines = page.as_str().unwrap().lines();
        lines
            .any(|line| line.starts_with(wanted[0]) && line.ends_with(wanted[1]))
            .then_some(())
    };
    cluster.ctl.eventually("the counters", shown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_reports_of_balancers_are_refused() {
    let ctl = Ctl::start(&crate::ctl::config(1, "", "")).await;
    let many: Vec<String> = (0..10_001).map(|number| format!("a-{number}")).collect();
    for body in [
        serde_json::json!({}),
        serde_json::json!({"balancer": "a b"}),
        serde_json::json!({"balancer": "a", "drained": many}),
    ] {
        ctl.request(reqwest::Method::POST, "/v1/balancer_reports", &body)
            .await
            .refused(400, "invalid_report");
    }
    let good = serde_json::json!({"balancer": "a", "table": "x-1", "drained": ["hello-1"]});
    ctl.request(reqwest::Method::POST, "/v1/balancer_reports", &good)
        .await
        .expect(204);
}
