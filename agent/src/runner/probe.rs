//! Health probes of running processes: TCP, HTTP, or a command in the container.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use reqwest::header::HOST;
use tokio::{net::TcpStream, time::timeout};
use tucano_api::{
    ids::ProcessId,
    service::{Health as Config, PortHealth, Probe, ServiceConfig},
};
use tucano_oci_runtime::supervisor;

use super::{freezer::Freezer, lifecycle::Health};
use crate::errors::root_cause;

/// Consecutive failures after which a healthy process becomes unhealthy.
const UNHEALTHY_AFTER: u32 = 3;
/// Longest time between two probes of a starting process, so that it gets requests as soon as it is ready.
const STARTING_INTERVAL: Duration = Duration::from_millis(100);

/// Probes one process.
#[derive(Debug, Clone)]
pub struct Prober {
    /// Address of the probed port; `None` without one: then the process is healthy while it runs, unless a command says otherwise.
    pub address: Option<SocketAddrV4>,
    /// The ports that have probes of their own.
    pub ports: Vec<(SocketAddrV4, PortHealth)>,
    /// `Host` of HTTP probes, else the address: many frameworks refuse requests for hosts that they do not know.
    pub host: Option<String>,
    /// The service's probe.
    pub config: Config,
    /// The container's home directory.
    pub home: PathBuf,
    /// The container runtime, which runs commands in containers.
    pub runtime: Arc<PathBuf>,
    /// Client of HTTP probes.
    pub client: reqwest::Client,
    /// The process.
    pub id: ProcessId,
    /// A frozen process is not probed.
    pub freezer: Arc<Freezer>,
}

/// A process's health after a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The health.
    pub health: Health,
    /// Why it is not healthy.
    pub reason: Option<String>,
}

impl Prober {
    /// Probes until the future is dropped; passes every change of health or reason to `report`.
    pub async fn run<F: Future<Output = ()>>(self, from: Health, report: impl Fn(Finding) -> F) {
        let mut health = HealthTracker::new(from);
        loop {
            let freezes = self.freezer.settled(&self.id).await;
            let started = tokio::time::Instant::now();
            let result = self.probe().await;
            if self.freezer.begun() != freezes {
                // It may have been frozen, and is not to blame for that.
                continue;
            }
            if let Some(finding) = health.record(result) {
                report(finding).await;
            }
            tokio::time::sleep_until(started + health.pause(self.config.interval.0)).await;
        }
    }

    /// One probe of everything that is probed.
    ///
    /// # Errors
    /// A sentence that says why the process is not healthy.
    pub async fn probe(&self) -> Result<(), String> {
        self.probe_service().await?;
        for (address, health) in &self.ports {
            self.probe_port(*address, health).await?;
        }
        Ok(())
    }

    async fn probe_service(&self) -> Result<(), String> {
        match (self.config.probe(), self.address) {
            // The runtime enforces the time limit of the command.
            (Probe::Exec(command), _) => self.exec(command.to_vec(), self.config.timeout.0).await,
            (_, None) => Ok(()),
            (Probe::Tcp, Some(address)) => self.in_time(address, connect(address)).await,
            (Probe::Http(path), Some(address)) => {
                let headers = &self.config.headers;
                self.in_time(address, self.get(address, path, headers))
                    .await
            }
        }
    }

    async fn probe_port(&self, address: SocketAddrV4, health: &PortHealth) -> Result<(), String> {
        match &health.http {
            Some(path) => {
                let no_headers = BTreeMap::new();
                let request = self.get(address, path, &no_headers);
                self.in_time(address, request).await
            }
            None => self.in_time(address, connect(address)).await,
        }
    }

    async fn in_time(
        &self,
        address: SocketAddrV4,
        probe: impl Future<Output = Result<(), String>>,
    ) -> Result<(), String> {
        let limit = self.config.timeout;
        let answer = timeout(limit.0, probe).await;
        let port = address.port();
        answer.unwrap_or_else(|_| Err(format!("port {port} did not answer within {limit}")))
    }

    async fn get(
        &self,
        address: SocketAddrV4,
        path: &str,
        headers: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let mut request = self.client.get(format!("http://{address}{path}"));
        if let Some(host) = &self.host {
            request = request.header(HOST, host);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.send().await;
        let status = response
            .map_err(|error| no_answer(address, &root_cause(&error)))?
            .status()
            .as_u16();
        match status {
            ..400 => Ok(()),
            _ => Err(format!("GET {path} answered with status {status}")),
        }
    }

    async fn exec(&self, command: Vec<String>, limit: Duration) -> Result<(), String> {
        let (program, home) = (Arc::clone(&self.runtime), self.home.clone());
        let name = command.first().cloned().unwrap_or_default();
        let ran =
            tokio::task::spawn_blocking(move || supervisor::exec(&program, &home, &command, limit));
        match ran.await {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(code)) => Err(format!("the probe {name} ended with exit code {code}")),
            Ok(Err(error)) => Err(format!("the probe {name} could not be run: {error}")),
            Err(error) => Err(format!("the probe {name} could not be run: {error}")),
        }
    }
}

async fn connect(address: SocketAddrV4) -> Result<(), String> {
    let connected = TcpStream::connect(address).await;
    connected
        .map(drop)
        .map_err(|error| no_answer(address, &error))
}

fn no_answer(address: SocketAddrV4, error: &dyn std::fmt::Display) -> String {
    format!("port {} does not answer: {error}", address.port())
}

/// The probes of a service's ports, which its `health` does not say.
pub fn of_ports(ip: Ipv4Addr, config: &ServiceConfig) -> Vec<(SocketAddrV4, PortHealth)> {
    let probed = config.ports.values().filter_map(|port| {
        let address = SocketAddrV4::new(ip, port.port);
        Some((address, port.health.clone()?))
    });
    probed.collect()
}

/// `Host` of a service's HTTP probes: the configured one, else the first of its hosts.
pub fn host_of(config: &ServiceConfig) -> Option<String> {
    let configured = config.health.host.as_ref();
    configured.or(config.hosts.first()).cloned()
}

/// The client of HTTP probes: no redirects, no proxy, a new connection each time.
///
/// # Errors
/// The TLS provider cannot be initialised.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .user_agent(concat!("tucano-probe/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Derives a process's health from the results of its probes.
#[derive(Debug)]
struct HealthTracker {
    last: Finding,
    failures: u32,
}

impl HealthTracker {
    fn new(health: Health) -> Self {
        Self {
            last: Finding {
                health,
                reason: None,
            },
            failures: 0,
        }
    }

    fn record(&mut self, result: Result<(), String>) -> Option<Finding> {
        let finding = match result {
            Ok(()) => {
                self.failures = 0;
                Finding {
                    health: Health::Healthy,
                    reason: None,
                }
            }
            Err(reason) => {
                self.failures += 1;
                let health = match self.last.health {
                    Health::Healthy if self.failures >= UNHEALTHY_AFTER => Health::Unhealthy,
                    Health::Healthy => return None,
                    other => other,
                };
                Finding {
                    health,
                    reason: Some(reason),
                }
            }
        };
        if finding == self.last {
            return None;
        }
        self.last = finding.clone();
        Some(finding)
    }

    fn pause(&self, interval: Duration) -> Duration {
        match self.last.health {
            Health::Starting => interval.min(STARTING_INTERVAL),
            Health::Healthy | Health::Unhealthy => interval,
        }
    }
}

#[cfg(test)]
mod tests;
