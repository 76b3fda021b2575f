//! Test bed: controller, balancer, processes and clients.

mod client;
mod controller;
mod origin;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tempfile::TempDir;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;
use tucano_api::routes::{Endpoint, ServiceRoute};
use tucano_balancer::{
    daemon::Balancer,
    follow::controller::Address,
    limits::Limits,
    settings::{Listen, Settings},
};
use tucano_daemon::log::LogFormat;

pub(crate) use client::{Client, Reply, ask, get};
pub(crate) use controller::Controller;
pub(crate) use origin::{Origin, refusing_address, silent_address};

/// How long a test waits for an expected event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A balancer in this process, with its controller.
pub(crate) struct TestBed {
    pub(crate) controller: Controller,
    pub(crate) address: SocketAddr,
    pub(crate) balancer: std::sync::Arc<tucano_balancer::plane::DataPlane>,
    pub(crate) directory: TempDir,
}

impl TestBed {
    /// A balancer with these routes.
    pub(crate) async fn new(services: Vec<ServiceRoute>) -> Self {
        Self::with_limits(services, Limits::default()).await
    }

    pub(crate) async fn with_limits(services: Vec<ServiceRoute>, limits: Limits) -> Self {
        Self::with(services, |settings| settings.limits = limits).await
    }

    pub(crate) async fn with(
        services: Vec<ServiceRoute>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let controller = Controller::start(directory.path().join("ctl.sock"));
        let mut settings = settings(&directory);
        change(&mut settings);
        let balancer = Balancer::build(&settings).await.unwrap();
        let (address, plane) = (balancer.addresses()[0], balancer.plane().clone());
        tokio::spawn(balancer.run(CancellationToken::new()));
        let bed = Self {
            controller,
            address,
            balancer: plane,
            directory,
        };
        bed.route(services).await;
        bed
    }

    /// Publishes these routes and waits until they are in force.
    pub(crate) async fn route(&self, services: Vec<ServiceRoute>) {
        let version = self.controller.publish(services);
        wait_until("the new routes to be in force", || {
            self.balancer.table().version() == Some(version.as_str())
        })
        .await;
    }

    /// A GET of `path` at host `hello.localhost`.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        get(self.address, "hello.localhost", path).await
    }

    /// The bodies of `count` requests for `/`.
    pub(crate) async fn bodies(&self, count: usize) -> Vec<String> {
        let mut bodies = Vec::new();
        for _ in 0..count {
            bodies.push(self.get("/").await.body);
        }
        bodies
    }
}

fn settings(directory: &TempDir) -> Settings {
    let file = |name: &str| -> PathBuf { directory.path().join(name) };
    Settings {
        follow: Address::Socket(file("ctl.sock")),
        identity: None,
        ca: file("ca.pem"),
        listen: vec![Listen::Address(([127, 0, 0, 1], 0).into())],
        lock: None,
        detach_draining: false,
        routes: Some(file("routes.json")),
        admin: Some(file("admin.sock")),
        trust_forwarded: false,
        threads: Some(1),
        log_format: LogFormat::Text,
        limits: Limits::default(),
    }
}

/// Service `hello` at `hello.localhost`, with these processes.
pub(crate) fn hello(origins: &[&Origin]) -> Vec<ServiceRoute> {
    let endpoints = origins.iter().enumerate();
    vec![service(
        "hello",
        endpoints
            .map(|(n, origin)| endpoint(n, origin.address))
            .collect(),
    )]
}

/// A service at `<name>.localhost`.
pub(crate) fn service(name: &str, endpoints: Vec<Endpoint>) -> ServiceRoute {
    ServiceRoute {
        service: name.parse().unwrap(),
        hosts: vec![format!("{name}.localhost")],
        path_prefix: None,
        endpoints,
    }
}

/// The `number`-th process of a service, on a node of its own.
pub(crate) fn endpoint(number: usize, address: SocketAddr) -> Endpoint {
    Endpoint {
        process: format!("hello-{number}").parse().unwrap(),
        node: format!("w{number}").parse().unwrap(),
        address,
        weight: 1,
        draining: false,
    }
}

/// Waits until `condition` holds.
pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = interval(Duration::from_millis(5));
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        ticks.tick().await;
    }
}

/// The value of `future`, which must be ready within [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("timed out waiting for {what}"),
    }
}
