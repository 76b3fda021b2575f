//! `tucano dev`: a whole cluster on this machine. The controller and each worker are virtual hosts; the API and the balancer
//! are reached through sockets of this process on the machine's own loopback interface, handed to the programs as their
//! standard input, so they stay when a program dies.
//!
//! - [`directory`]: the cluster's files, and their removal;
//! - [`cluster`]: the hosts, and which program runs where; [`settings`]: the programs' configuration;
//! - [`supervise`]: restarts programs that end; [`ready`]: waits until the cluster works.

mod cluster;
mod directory;
mod ready;
mod settings;
mod supervise;

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    Error,
    args::{Dev, Global, Wait},
    client::Client,
    commands,
    image::Source,
    output::status,
};
use cluster::{Cluster, Programs};
use directory::Directory;

/// How long each service of `--deploy` may take to become healthy.
const DEPLOY_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs the cluster until a signal ends it, and removes it.
///
/// # Errors
/// The cluster cannot be started.
pub(crate) async fn run(api: SocketAddr, dev: &Dev) -> Result<(), Error> {
    check(api, dev)?;
    let sources = dev
        .deploy
        .iter()
        .map(|path| Source::of_service_or_image(path));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let mut end = EndSignals::listen()?;
    let programs = Programs::find()?;
    let directory = Directory::open(dev.data.as_deref(), api.port())?;
    // Removes what a killed cluster left in this directory, including its sockets on these addresses.
    let network = cluster::network(&directory)?;
    let api = listen(api, "--api")?;
    let balancer = listen(dev.balancer, "--balancer")?;
    let client = client_of(local(&api)?)?;
    let addresses = (local(&api)?, local(&balancer)?);
    let cluster = Cluster::start(network, &programs, dev.workers, &directory, (api, balancer))?;
    let work = async {
        ready::wait(&client, &cluster, &directory).await?;
        deploy(&client, &sources, addresses.1).await;
        if !dev.quiet {
            status(&ready::guide(&cluster, &directory, addresses));
        }
        std::future::pending().await
    };
    let result = tokio::select! {
        result = work => result,
        () = end.received() => Ok(()),
    };
    status("ending the cluster");
    cluster.stop().await?;
    // After a failure the logs are kept; the next start removes them.
    result.and_then(|()| directory.remove())
}

/// A service that cannot be deployed does not end the cluster, so that the cause can be examined.
async fn deploy(client: &Client, sources: &[Source], balancer: SocketAddr) {
    let wait = Wait {
        no_wait: false,
        timeout: DEPLOY_TIMEOUT,
    };
    for source in sources {
        match commands::deploy(client, source, wait).await {
            Ok((_, Ok(()))) => {
                let (name, port) = (&source.config.name, balancer.port());
                status(&format!(
                    "{name} answers at http://{name}.localhost:{port}/"
                ));
            }
            Ok((_, Err(error))) | Err(error) => error.report(false),
        }
    }
}

fn check(api: SocketAddr, dev: &Dev) -> Result<(), Error> {
    for (flag, address) in [("--api", api), ("--balancer", dev.balancer)] {
        if !address.ip().is_loopback() {
            let message = format!(
                "{flag} {address}: a development cluster requires no token, so it listens on loopback addresses only"
            );
            return Err(Error::Usage(message));
        }
    }
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let reason = "`tucano dev` creates namespaces and cgroups, which needs root: run it with sudo";
    Err(Error::Dev(reason.to_owned()))
}

fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).map_err(|source| Error::Listen {
        address,
        flag,
        source,
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener
        .local_addr()
        .map_err(|source| Error::Runtime { source })
}

fn client_of(api: SocketAddr) -> Result<Client, Error> {
    Client::new(&Global {
        api: format!("http://{api}"),
        token: None,
        token_file: None,
        ca_file: None,
        json: false,
    })
}

/// The signals that end the cluster in order.
struct EndSignals([Signal; 3]);

impl EndSignals {
    fn listen() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(|source| Error::Runtime { source });
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn received(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
