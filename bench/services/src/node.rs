//! A worker with processes that need services, and another machine that answers for every endpoint.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::Instant,
};

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tucano_agent::runner::network::{Cluster, Network, Options, PortRange, Subnet};
use tucano_api::{
    agent::DesiredProcess,
    ids::{ProcessId, Revision},
    names::Names,
    settings::parse,
};

use crate::{
    names::{self, NODE_PORT},
    namespace::{Namespace, ip},
};

/// Processes that connect.
pub(crate) const CLIENTS: usize = 16;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// The worker, as its agent keeps it.
pub(crate) struct Node {
    /// How many services its processes need.
    pub(crate) services: usize,
    own: Namespace,
    pub(crate) clients: Vec<Namespace>,
    runtime: Runtime,
    network: Network,
    listener: TcpListener,
}

impl Node {
    /// Makes its namespaces and puts the rules in force.
    pub(crate) fn start(services: usize) -> Result<Self> {
        let far = Namespace::enter_new()?;
        let own = Namespace::enter_new()?;
        let listener = connect_machines(&own, &far)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let network = Network::new(Options {
            bridge: "tucano0",
            subnet: Subnet::default(),
            ports: PortRange::default(),
            clients: Default::default(),
            controller: None,
            cluster: Cluster {
                services: Some(Default::default()),
                ..Cluster::default()
            },
            names: Names::default(),
            seed: 0,
            ready: 0,
            tracked_connections: 0,
        })?;
        let begin = Instant::now();
        let clients = runtime.block_on(async {
            network.tidy().await?;
            let mut clients = Vec::new();
            for number in 0..CLIENTS {
                clients.push(connect_client(&network, number, services).await?);
            }
            network.learn(names::all(services)?).await?;
            anyhow::Ok(clients)
        })?;
        eprintln!(
            "{services} services: the rules are in force after {:.2} s",
            begin.elapsed().as_secs_f64()
        );
        Ok(Self {
            services,
            own,
            clients,
            runtime,
            network,
            listener,
        })
    }

    /// The agent learns what has changed.
    pub(crate) fn learn(&mut self, names: Names) -> Result<()> {
        Ok(self.runtime.block_on(self.network.learn(names))?)
    }

    /// Moves this thread to the worker.
    pub(crate) fn enter(&self) -> Result<()> {
        self.own.enter()
    }

    /// Forgets the connections that were made: the kernel keeps so many only.
    pub(crate) fn accept_all(&self) {
        while self.listener.accept().is_ok() {}
    }

    /// The services that a client needs.
    pub(crate) fn needed_by(client: usize, services: usize) -> impl Iterator<Item = usize> {
        // Each needs its share, or the same where there are fewer services than clients.
        (0..services).filter(move |it| services < CLIENTS || it % CLIENTS == client)
    }
}

/// Connects the worker with a machine that has every endpoint's address, and listens there.
fn connect_machines(own: &Namespace, far: &Namespace) -> Result<TcpListener> {
    far.enter()?;
    ip("link add far0 type veth peer name near0")?;
    let thread = std::thread::scope(|scope| {
        let (entered, is_there) = std::sync::mpsc::channel();
        let (moved, is_moved) = std::sync::mpsc::channel::<()>();
        // A namespace without a name is that of a thread in it.
        scope.spawn(move || {
            entered
                .send(own.enter().map(|()| nix::unistd::gettid()))
                .ok();
            is_moved.recv().ok();
        });
        let thread = is_there.recv().context("the worker's thread has ended");
        let result = thread.and_then(|thread| ip(&format!("link set near0 netns {}", thread?)));
        drop(moved);
        result
    });
    thread?;
    ip("address add 10.10.0.2/24 dev far0")?;
    ip("link set far0 up")?;
    ip("route add local 10.9.0.0/16 dev lo")?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, NODE_PORT))?;
    // Nothing is accepted while the clock runs.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    own.enter()?;
    ip("address add 10.10.0.1/24 dev near0")?;
    ip("link set near0 up")?;
    ip("route add 10.9.0.0/16 via 10.10.0.2")?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("ip_forward")?;
    Ok(listener)
}

/// The network of a process that needs its share of the services.
async fn connect_client(network: &Network, number: usize, services: usize) -> Result<Namespace> {
    let text = format!("name = \"client{number}\"\nconcurrency = 1\nport = 80\n");
    let mut config: tucano_api::service::ServiceConfig = parse("client.toml", &text)?;
    let needs = Node::needed_by(number, services).map(names::name);
    config.needs = needs.collect::<Result<_>>()?;
    let process = DesiredProcess {
        id: ProcessId::new(&config.name, 1),
        revision: Revision(1),
        image: format!("sha256:{}", "0".repeat(64)).parse()?,
        slot: None,
        volumes: Vec::new(),
        run: None,
        address: None,
        kept: Default::default(),
        devices: Vec::new(),
        config,
    };
    let (lease, _) = network.lease(&process.config)?;
    network.set_process(lease, &process).await?;
    Ok(Namespace::of(network.connect(lease).await?))
}
