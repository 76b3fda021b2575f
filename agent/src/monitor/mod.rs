//! Monitor: tells the controller what this node is and runs, each `publish_interval` and at once on a change.

mod apis;
mod node;
mod processes;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use reqwest::StatusCode;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tucano_api::{
    agent::{Apis, NodeReport, ReportAccepted},
    error::ErrorBody,
};

use self::{node::NodeMonitor, processes::metrics};
use crate::{
    errors::innermost,
    runner::{Handle, Snapshot, execute::Executor},
    settings::Settings,
    tls::{Tls, client},
};

/// Changes that come within this time go into one report.
const COALESCED: Duration = Duration::from_millis(20);
/// Largest answer that is read: it may name an address of each node.
const ANSWER_BYTES: usize = 1 << 20;

/// Why a report did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Failure {
    #[error("the controller at {0} cannot be reached: {1}")]
    Unreachable(String, String),
    #[error("the controller refuses this node's reports (status {0}): {1}")]
    Refused(u16, String),
    #[error("the controller's answer makes no sense: {0}")]
    Malformed(String),
    #[error("this node's address is not known: {0}; write `ip` into the agent's configuration")]
    NoAddress(String),
}

/// Sends reports.
#[derive(Debug)]
pub struct Monitor {
    settings: Arc<Settings>,
    executor: Arc<Executor>,
    tls: Arc<Tls>,
    runner: Handle,
    client: reqwest::Client,
    node: NodeMonitor,
    agent_id: String,
    sequence: u64,
    listen: SocketAddr,
    /// What was last logged of the way to the controller, so that each change is logged once.
    last_failure: Option<Failure>,
    was_heard: bool,
    /// Which list of addresses processes are kept from.
    apis: Option<String>,
}

impl Monitor {
    /// `listen` is where the agent really listens, `agent_id` who it says it is there.
    pub fn new(
        settings: Arc<Settings>,
        executor: Arc<Executor>,
        tls: Arc<Tls>,
        runner: Handle,
        listen: SocketAddr,
        agent_id: String,
    ) -> Result<Self, reqwest::Error> {
        let client = client(settings.trust.as_ref())?
            .timeout(settings.report_timeout())
            .build()?;
        Ok(Self {
            node: NodeMonitor::new(&settings),
            agent_id,
            sequence: 0,
            last_failure: None,
            was_heard: false,
            apis: None,
            settings,
            executor,
            tls,
            runner,
            client,
            listen,
        })
    }

    /// Reports until the future is dropped.
    pub async fn run(mut self) {
        self.tls.ready().await;
        let mut snapshots = self.runner.snapshots();
        loop {
            let started = Instant::now();
            let snapshot = snapshots.borrow_and_update().clone();
            let outcome = self.report(snapshot).await;
            self.log(outcome.as_ref().err());
            if let Ok(answer) = outcome {
                if let Some(apis) = &answer.apis {
                    self.keep_from(apis).await;
                }
                self.runner.controller_answered(answer).await;
            }
            self.pause(&mut snapshots, started).await;
        }
    }

    /// Keeps processes from these. What fails is told, and tried again with the next report.
    async fn keep_from(&mut self, wanted: &Apis) {
        match apis::keep_from(&self.executor, wanted).await {
            Ok(()) => self.apis = Some(wanted.tag.clone()),
            Err(error) => {
                tracing::warn!(%error, "processes are not kept from the APIs of the cluster");
            }
        }
    }

    /// Until the next report is due or something changes. A controller that is not there is not called more often for that.
    async fn pause(&self, snapshots: &mut watch::Receiver<Snapshot>, started: Instant) {
        let due = sleep_until(started + self.settings.publish_interval.0);
        if self.last_failure.is_some() {
            return due.await;
        }
        tokio::select! {
            () = due => {}
            Ok(()) = snapshots.changed() => sleep(COALESCED).await,
        }
    }

    async fn report(&mut self, snapshot: Snapshot) -> Result<ReportAccepted, Failure> {
        self.sequence += 1;
        let report = self.compose(snapshot).await?;
        let url = format!("{}/v1/reports", self.settings.controller);
        let mut request = self.client.post(&url).json(&report);
        if let Some(token) = &self.settings.token {
            request = request.bearer_auth(token.reveal());
        }
        let unreachable = |error: &reqwest::Error| {
            Failure::Unreachable(self.settings.controller.clone(), innermost(error))
        };
        let mut response = request.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| unreachable(&error))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES {
                return Err(Failure::Malformed("it is too long".to_owned()));
            }
        }
        understand(status, &body)
    }

    async fn compose(&mut self, snapshot: Snapshot) -> Result<NodeReport, Failure> {
        let ip = self.ip()?;
        let (node_metrics, mut notes) = self.node.sample();
        notes.extend(snapshot.notes);
        let executor = Arc::clone(&self.executor);
        let mut processes = snapshot.processes;
        // Reading cgroups' files may block.
        let measured = tokio::task::spawn_blocking(move || {
            for process in &mut processes {
                process.metrics = metrics(&executor.data.process(&process.id).home());
            }
            processes
        });
        Ok(NodeReport {
            node: self.settings.name.clone(),
            ip,
            agent_port: self.listen.port(),
            agent_id: self.agent_id.clone(),
            sequence: self.sequence,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            architecture: tucano_oci_image::Platform::host().architecture,
            generation: snapshot.generation,
            metrics: node_metrics,
            notes,
            apis: self.apis.clone(),
            processes: measured
                .await
                .map_err(|error| Failure::Malformed(error.to_string()))?,
        })
    }

    fn ip(&self) -> Result<IpAddr, Failure> {
        match self.settings.ip {
            Some(ip) => Ok(ip),
            None => local_address(&self.settings.controller)
                .map_err(|error| Failure::NoAddress(error.to_string())),
        }
    }

    /// Once per change: a controller that is down for an hour is one line, not thousands.
    fn log(&mut self, failure: Option<&Failure>) {
        match failure {
            Some(failure) if self.last_failure.as_ref() != Some(failure) => {
                tracing::warn!(%failure, "reporting fails");
            }
            None if self.last_failure.is_some() || !self.was_heard => {
                tracing::info!(controller = %self.settings.controller, "the controller takes the reports");
            }
            _ => {}
        }
        self.was_heard |= failure.is_none();
        self.last_failure = failure.cloned();
    }
}

fn understand(status: StatusCode, body: &[u8]) -> Result<ReportAccepted, Failure> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| Failure::Malformed(error.to_string()));
    }
    let said = serde_json::from_slice::<ErrorBody>(body).map(|body| body.error);
    let said = said.unwrap_or_else(|_| "it does not say why".to_owned());
    Err(Failure::Refused(status.as_u16(), said))
}

/// The address that this node has on the way to the controller. Sends nothing.
pub fn local_address(controller: &str) -> std::io::Result<IpAddr> {
    let url = reqwest::Url::parse(controller).map_err(std::io::Error::other)?;
    let addresses = url.socket_addrs(|| None)?;
    let address = addresses
        .first()
        .ok_or_else(|| std::io::Error::other("the controller's name has no address"))?;
    let any: IpAddr = match address {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_address_is_the_one_towards_the_controller() {
        let ip = local_address("http://127.0.0.1:7070").unwrap();
        assert!(ip.is_loopback(), "{ip}");
    }

    #[test]
    fn an_answer_is_understood_or_explained() {
        let good = br#"{"node":"w1","generation":4,"lease":"6s"}"#;
        assert_eq!(understand(StatusCode::OK, good).unwrap().generation.0, 4);
        let refusal = br#"{"error":"10.0.0.9 is not in the topology","code":"unknown_node"}"#;
        let failure = understand(StatusCode::FORBIDDEN, refusal)
            .unwrap_err()
            .to_string();
        assert!(
            failure.contains("403") && failure.contains("not in the topology"),
            "{failure}"
        );
        assert!(understand(StatusCode::OK, b"<html>").is_err());
    }
}
