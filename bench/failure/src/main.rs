//! How long the clients of a service get no answers when one of its endpoints fails, on virtual hosts of this machine.
#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

mod clients;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use tucano_tests::{
    CLUSTER, Cluster, Options,
    containers::{Container, containers},
    images,
};

use clients::{Clients, SERVICE_ADDRESS};

/// Arguments of the benchmark.
#[derive(Debug, Parser)]
struct Arguments {
    /// Failures of each kind.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Clients on one worker, each of which connects again for each request.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Further lines of each agent.toml, such as `suspect_after = "0s"`.
    #[arg(long, default_value = "")]
    agent: String,
}

/// What fails. The clients are on worker 0, the endpoint on worker 1.
#[derive(Debug, Clone, Copy)]
enum Failure {
    /// Its program is killed.
    Killed,
    /// Its worker and the clients' do not reach each other any more; the controller reaches both.
    Partition,
    /// Its worker's power is cut.
    PowerOff,
}

impl Failure {
    const ALL: [Self; 3] = [Self::Killed, Self::Partition, Self::PowerOff];

    fn name(self) -> &'static str {
        match self {
            Self::Killed => "endpoint killed",
            Self::Partition => "its worker cut off from the clients'",
            Self::PowerOff => "its worker's power cut",
        }
    }

    fn begin(self, cluster: &mut Cluster) -> Result<()> {
        match self {
            Self::Killed => {
                let endpoint = remote_endpoint(cluster);
                let pid =
                    endpoint.and_then(|it| rustix::process::Pid::from_raw(it.pid.parse().ok()?));
                let pid = pid.ok_or_else(|| anyhow::anyhow!("no endpoint on worker 1"))?;
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            }
            Self::Partition => cluster
                .network()
                .cut(cluster.worker(0), cluster.worker(1))?,
            Self::PowerOff => cluster.power_off(1),
        }
        Ok(())
    }

    fn end(self, cluster: &mut Cluster) -> Result<()> {
        match self {
            Self::Killed => {}
            Self::Partition => cluster
                .network()
                .heal(cluster.worker(0), cluster.worker(1))?,
            Self::PowerOff => cluster.boot(1),
        }
        Ok(())
    }
}

fn remote_endpoint(cluster: &Cluster) -> Option<Container> {
    let mut all = containers(cluster, "db").into_iter();
    all.find(|it| it.worker == 1)
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    for need in &CLUSTER {
        ensure!(tucano_testkit::needs(&[*need]), "something is missing");
    }
    let mut cluster = Cluster::start(&Options {
        workers: 2,
        ctl_settings: String::new(),
        agent_settings: format!("{}\n", arguments.agent),
        ..Options::default()
    });
    let hello = images::sample("hello");
    let service = |name: &str, more: &str| {
        format!("name = \"{name}\"\nconcurrency = 2\nport = 8080\nmemory = \"32MiB\"\n{more}\n")
    };
    // The first service has the first address.
    cluster.deploy_healthy(&service("db", ""), &hello);
    cluster.deploy_healthy(&service("client", "needs = [\"db\"]"), &hello);
    println!(
        "longest time without an answer, s, {} clients, {} runs",
        arguments.clients, arguments.runs
    );
    println!("| failure | median | worst |");
    println!("|---|---|---|");
    for failure in Failure::ALL {
        let mut gaps = Vec::new();
        for _ in 0..arguments.runs {
            gaps.push(run(&mut cluster, failure, arguments.clients)?);
        }
        gaps.sort();
        let (median, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        println!(
            "| {} | {:.2} | {:.2} |",
            failure.name(),
            median.as_secs_f64(),
            worst.as_secs_f64()
        );
    }
    Ok(())
}

/// The longest time that any client was without an answer.
fn run(cluster: &mut Cluster, failure: Failure, clients: usize) -> Result<Duration> {
    let both = |cluster: &Cluster| {
        cluster.wait("one endpoint on each worker", || {
            let db = cluster.processes("db");
            let nodes: std::collections::BTreeSet<_> =
                db.iter().map(|it| it.node.clone()).collect();
            (db.len() == 2 && nodes.len() == 2).then_some(())
        });
        cluster.wait_for_healthy("db", 2);
    };
    both(cluster);
    let local = containers(cluster, "client");
    let local = local.into_iter().find(|it| it.worker == 0);
    let local = local.ok_or_else(|| anyhow::anyhow!("no client on worker 0"))?;
    let clients = Clients::start(&local, SERVICE_ADDRESS, clients);
    cluster.wait("both endpoints to answer", || {
        (clients.endpoints() == 2).then_some(())
    });
    clients.mark();
    failure.begin(cluster)?;
    cluster.wait("each client to be answered for a while", || {
        clients.have_recovered().then_some(())
    });
    let longest = clients.longest_gap();
    drop(clients);
    failure.end(cluster)?;
    Ok(longest)
}
