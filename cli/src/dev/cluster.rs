//! The hosts of a development cluster, and which program runs where.

use std::{
    ffi::OsString,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::task::JoinSet;
use tucano_api::units::Bytes;
use tucano_tls::Authority;
use tucano_vhost::{Host, HostOptions, Network, NetworkOptions};

use super::{
    directory::Directory,
    settings,
    supervise::{Program, keep_running},
};
use crate::{Error, commands::find_program};

/// Host numbers in the subnet: the controller's, and the one before the first worker's.
const CTL: u32 = 2;
const BEFORE_WORKERS: u32 = 10;

/// A cluster whose programs are kept running.
#[derive(Debug)]
pub(super) struct Cluster {
    network: Arc<Network>,
    pub(super) workers: Vec<Host>,
    programs: JoinSet<()>,
    controller_starts: Arc<AtomicU32>,
}

impl Cluster {
    /// Boots the hosts and starts their programs.
    pub(super) fn start(
        network: Network,
        programs: &Programs,
        workers: u32,
        directory: &Directory,
        sockets: (TcpListener, TcpListener),
    ) -> Result<Self, Error> {
        directory.prepare()?;
        let boot =
            |name: String, n| network.boot(HostOptions::new(name, network.subnet().address(n)));
        let ctl = boot("ctl".to_owned(), CTL)?;
        let hosts = (1..=workers).map(|n| boot(format!("w{n}"), BEFORE_WORKERS + n));
        let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
        let token = directory.write_agent_token()?;
        let mut cluster = Self {
            network: Arc::new(network),
            workers: hosts,
            programs: JoinSet::new(),
            controller_starts: Arc::default(),
        };
        // Created before the controller starts, because the agents need the certificate at their start.
        let tls = data_of(&ctl).join("tls");
        Authority::open(&tls).map_err(|error| Error::Dev(error.to_string()))?;
        let ca_file = Authority::certificate_in(&tls);
        cluster.start_controller(programs, directory, &ctl, &token, sockets)?;
        let memory = settings::memory_share(workers)?;
        for worker in cluster.workers.clone() {
            cluster.start_agent(
                programs,
                directory,
                &ctl,
                &worker,
                (&ca_file, &token),
                memory,
            )?;
        }
        Ok(cluster)
    }

    /// How often the controller has been started.
    pub(super) fn controller_starts(&self) -> u32 {
        self.controller_starts.load(Ordering::Relaxed)
    }

    /// Ends every program and its children; removes hosts, network and cgroups.
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        self.programs.shutdown().await;
        match Arc::into_inner(self.network) {
            Some(network) => Ok(network.destroy()?),
            None => Err(Error::Dev(
                "a program of the cluster still uses its host".to_owned(),
            )),
        }
    }

    fn start_controller(
        &mut self,
        programs: &Programs,
        directory: &Directory,
        ctl: &Host,
        token: &Path,
        (api, balancer): (TcpListener, TcpListener),
    ) -> Result<(), Error> {
        let data_dir = data_of(ctl);
        let config = ctl.directory().join("ctl.toml");
        settings::write(
            &config,
            &settings::Controller::new(&data_dir, token, ctl, &self.workers),
        )?;
        let starts = self.controller_starts.clone();
        self.keep_running(Program {
            name: "tucano_ctld".to_owned(),
            host: ctl.clone(),
            program: programs.ctld.clone(),
            arguments: arguments([&"--config" as &dyn AsRef<std::ffi::OsStr>, &config]),
            socket: Some(api),
            log: directory.log_of("ctld"),
            starts,
        });
        let follow = data_dir.join("ctl.sock");
        let lock = data_dir.join("balancer.lock");
        self.keep_running(Program {
            name: "tucano_balancerd".to_owned(),
            host: ctl.clone(),
            program: programs.balancerd.clone(),
            arguments: arguments([
                &"--follow" as &dyn AsRef<std::ffi::OsStr>,
                &follow,
                &"--listen",
                &"stdin",
                &"--detach-draining",
                &"--lock",
                &lock,
            ]),
            socket: Some(balancer),
            log: directory.log_of("balancerd"),
            starts: Arc::default(),
        });
        Ok(())
    }

    fn start_agent(
        &mut self,
        programs: &Programs,
        directory: &Directory,
        ctl: &Host,
        worker: &Host,
        secrets: (&Path, &Path),
        memory: Bytes,
    ) -> Result<(), Error> {
        let data_dir = data_of(worker);
        let config = worker.directory().join("agent.toml");
        settings::write(
            &config,
            &settings::Agent::new(&data_dir, secrets, ctl, worker, memory),
        )?;
        self.keep_running(Program {
            name: format!("tucano_agentd of {}", worker.name()),
            host: worker.clone(),
            program: programs.agentd.clone(),
            arguments: arguments([&"--config" as &dyn AsRef<std::ffi::OsStr>, &config]),
            socket: None,
            log: directory.log_of(worker.name()),
            starts: Arc::default(),
        });
        Ok(())
    }

    fn keep_running(&mut self, program: Program) {
        self.programs
            .spawn(keep_running(self.network.clone(), program));
    }
}

fn data_of(host: &Host) -> PathBuf {
    host.directory().join("data")
}

/// The programs of the cluster; looked up before anything is created.
#[derive(Debug)]
pub(super) struct Programs {
    ctld: PathBuf,
    balancerd: PathBuf,
    agentd: PathBuf,
}

impl Programs {
    pub(super) fn find() -> Result<Self, Error> {
        let find = |name: &str| {
            find_program(name).ok_or_else(|| {
                let advice = "build the whole workspace with `cargo build --workspace`, or install it next to `tucano`";
                Error::Dev(format!("the program {name} is missing: {advice}"))
            })
        };
        // The agent looks this one up itself, but only at the first start of a container.
        find("tucano_oci")?;
        Ok(Self {
            ctld: find("tucano_ctld")?,
            balancerd: find("tucano_balancerd")?,
            agentd: find("tucano_agentd")?,
        })
    }
}

/// The network of a new cluster in this directory. Removes what a killed cluster left there.
pub(super) fn network(directory: &Directory) -> Result<Network, Error> {
    Ok(Network::create(NetworkOptions::new(
        unique_name()?,
        directory.path(),
    ))?)
}

fn unique_name() -> Result<String, Error> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|error| Error::Dev(format!("cannot create a name: {error}")))?;
    Ok(format!("tucano-dev-{:08x}", u32::from_ne_bytes(random)))
}

fn arguments<const N: usize>(words: [&dyn AsRef<std::ffi::OsStr>; N]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}
