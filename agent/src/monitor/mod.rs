//! Monitor: reports the node's state to the controller, every `publish_interval` and at once on a change.

mod cluster;
mod node;
mod processes;

use std::{
    net::{IpAddr, SocketAddr},
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
    service::{AGENT_KEYS, NEEDS_KEY},
};

use self::{
    node::NodeMonitor,
    processes::{metrics, pids_reason},
};
use crate::{
    address::local_address,
    answers::{self, BodyError},
    credentials::Credentials,
    errors::root_cause,
    runner::{Handle, Snapshot, execute::Executor, network::Cluster},
    settings::Settings,
    tls::Tls,
};

/// Changes within this time are combined into one report.
const COALESCE_INTERVAL: Duration = Duration::from_millis(20);
/// Largest response that is read: it may list an address of each node, and the whole desired set.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// Why a report was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Failure {
    #[error("the controller at {0} cannot be reached: {1}")]
    Unreachable(String, String),
    #[error("the controller refused the report with status {0}: {1}")]
    Refused(u16, String),
    #[error("the controller's response is invalid: {0}")]
    Malformed(String),
    #[error("cannot determine this node's address: {0}; set `ip` in agent.toml")]
    NoAddress(String),
}

/// Sends reports.
#[derive(Debug)]
pub struct Monitor {
    settings: Arc<Settings>,
    executor: Arc<Executor>,
    tls: Arc<Tls>,
    runner: Handle,
    credentials: Arc<Credentials>,
    /// The client, with the certificate that it presents.
    client: Option<(Option<String>, reqwest::Client)>,
    node: NodeMonitor,
    agent_id: String,
    sequence: u64,
    listen: SocketAddr,
    /// The failure that was logged last: a repeated failure is logged once.
    last_failure: Option<Failure>,
    has_reported: bool,
    /// Whether the controller has asked for the desired set that is held.
    send_held: bool,
    /// Tag of the list of the cluster's machines that is in force.
    apis: Option<String>,
    /// The address that the last report was sent to.
    controller: Option<IpAddr>,
    /// The cluster's machines as they are stored for the next agent.
    stored: Cluster,
    /// Failures that were logged last: each is logged once.
    rules_failure: Option<String>,
    store_failure: Option<String>,
}

impl Monitor {
    /// `listen` is the bound address of the agent's API, `agent_id` the id that it returns there.
    pub fn new(
        settings: Arc<Settings>,
        executor: Arc<Executor>,
        tls: Arc<Tls>,
        credentials: Arc<Credentials>,
        runner: Handle,
        listen: SocketAddr,
        agent_id: String,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            node: NodeMonitor::new(&settings),
            agent_id,
            sequence: 0,
            last_failure: None,
            has_reported: false,
            send_held: false,
            apis: None,
            controller: None,
            stored: executor.network.cluster(),
            rules_failure: None,
            store_failure: None,
            settings,
            executor,
            tls,
            runner,
            credentials,
            client: None,
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
                self.send_held = answer.send_held;
                self.update_cluster(answer.apis.as_ref()).await;
                self.store_cluster().await;
                self.runner.controller_answered(answer).await;
            }
            self.pause(&mut snapshots, started).await;
        }
    }

    /// Puts a new list of the cluster's machines in force, with the address that the controller answers at. A failure is retried
    /// with the next report.
    async fn update_cluster(&mut self, list: Option<&Apis>) {
        let controller = self.controller.and_then(cluster::ipv4);
        let change = |cluster: &mut Cluster| {
            if let Some(list) = list {
                *cluster = cluster::updated(cluster, list);
            }
            if let Some(ip) = controller.filter(|ip| !ip.is_loopback()) {
                cluster.add_controller(ip);
            }
        };
        let failure = match self.executor.network.update_cluster(change).await {
            Ok(()) => {
                self.apis = list.map(|list| list.tag.clone()).or(self.apis.take());
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failure.as_ref().filter(|_| self.rules_failure != failure) {
            tracing::warn!(%error, "cannot block processes from the APIs of the cluster");
        }
        self.rules_failure = failure;
    }

    /// Stores the cluster's machines for the next agent, if they changed. The rules are in force without that; a failure is retried
    /// with the next report.
    async fn store_cluster(&mut self) {
        let cluster = self.executor.network.cluster();
        if cluster == self.stored {
            return;
        }
        let (data, storing) = (Arc::clone(&self.executor.data), cluster.clone());
        let stored = tokio::task::spawn_blocking(move || data.store_cluster(&storing)).await;
        let failure = match stored {
            Ok(Ok(())) => {
                self.stored = cluster;
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failure.as_ref().filter(|_| self.store_failure != failure) {
            tracing::warn!(%error, "cannot store the cluster's machines for the next agent");
        }
        self.store_failure = failure;
    }

    /// Waits until the next report is due or the state changes. While reports fail, changes do not trigger further ones.
    async fn pause(&self, snapshots: &mut watch::Receiver<Snapshot>, started: Instant) {
        let due = sleep_until(started + self.settings.publish_interval.0);
        if self.last_failure.is_some() {
            return due.await;
        }
        tokio::select! {
            () = due => {}
            Ok(()) = snapshots.changed() => sleep(COALESCE_INTERVAL).await,
        }
    }

    async fn report(&mut self, snapshot: Snapshot) -> Result<ReportAccepted, Failure> {
        self.sequence += 1;
        let report = self.compose(snapshot).await?;
        let url = format!("{}/v1/reports", self.settings.controller);
        let client = self.client()?;
        let controller = self.settings.controller.clone();
        let unreachable =
            |error: &reqwest::Error| Failure::Unreachable(controller.clone(), root_cause(error));
        let response = self
            .credentials
            .send(|| client.post(&url).json(&report))
            .await;
        let mut response = response.map_err(|error| unreachable(&error))?;
        self.controller = response.remote_addr().map(|address| address.ip());
        let status = response.status();
        let mut body = Vec::new();
        let read = answers::read_body(&mut response, MAX_RESPONSE_BYTES, &mut body).await;
        read.map_err(|error| match error {
            BodyError::Broken(error) => unreachable(&error),
            BodyError::TooLong => Failure::Malformed("it is longer than 16 MiB".to_owned()),
        })?;
        parse_response(status, &body)
    }

    /// Connections present the certificate of their handshake: with a new one, the client and its connections are replaced.
    fn client(&mut self) -> Result<reqwest::Client, Failure> {
        let leaf = self.credentials.certificates().current();
        let certificate = leaf.map(|leaf| leaf.pem().to_owned());
        if let Some((of, client)) = &self.client
            && *of == certificate
        {
            return Ok(client.clone());
        }
        let controller = &self.settings.controller;
        let unusable = |error: String| Failure::Unreachable(controller.clone(), error);
        let client = self.credentials.client();
        let client = client.map_err(|error| unusable(error.to_string()))?;
        let client = client.timeout(self.settings.report_timeout()).build();
        let client = client.map_err(|error| unusable(root_cause(&error)))?;
        self.client = Some((certificate, client.clone()));
        Ok(client)
    }

    async fn compose(&mut self, snapshot: Snapshot) -> Result<NodeReport, Failure> {
        let ip = self.ip()?;
        let (node_metrics, mut notes) = self.node.sample();
        notes.extend(snapshot.notes);
        let held = match self.send_held {
            true => self.runner.held().await.ok(),
            false => None,
        };
        let executor = Arc::clone(&self.executor);
        let mut processes = snapshot.processes;
        // Reading files may block.
        let measured = tokio::task::spawn_blocking(move || {
            for process in &mut processes {
                process.metrics = metrics(&executor.data.process(&process.id).home());
                let reason = process.metrics.as_ref().and_then(pids_reason);
                process.reason = process.reason.take().or(reason);
            }
            let mut volumes = executor.volumes.report();
            if let Some(volumes) = &mut volumes {
                executor.fills.add_to(volumes);
                executor.backups.report(volumes);
            }
            let conditions = [
                executor.resolver.condition(),
                executor.network.rules_condition(),
            ];
            (processes, volumes, conditions, executor.devices.find())
        });
        let measured = measured.await;
        let (processes, volumes, conditions, devices) =
            measured.map_err(|error| Failure::Malformed(error.to_string()))?;
        notes.extend(conditions.into_iter().flatten());
        notes.extend(devices.notes);
        Ok(NodeReport {
            node: self.settings.name.clone(),
            ip,
            agent_port: self.listen.port(),
            agent_id: self.agent_id.clone(),
            sequence: self.sequence,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            architecture: tucano_oci_image::Platform::host().architecture,
            live_changes: true,
            keys: self.keys(),
            host_paths: self.host_paths(),
            devices: devices.devices,
            device_paths: devices.paths,
            volumes,
            generation: snapshot.generation,
            identity: snapshot.identity,
            held,
            metrics: node_metrics,
            notes,
            apis: self.apis.clone(),
            processes,
        })
    }

    /// Where services cannot be connected, no process that needs any is placed.
    fn keys(&self) -> Vec<String> {
        let connects = self.executor.network.connects_services();
        let keys = AGENT_KEYS.into_iter();
        keys.filter(|key| connects || *key != NEEDS_KEY)
            .map(str::to_owned)
            .collect()
    }

    fn host_paths(&self) -> Vec<String> {
        let paths = self.settings.host_paths.iter();
        paths.map(|path| path.display().to_string()).collect()
    }

    fn ip(&self) -> Result<IpAddr, Failure> {
        match self.settings.ip {
            Some(ip) => Ok(ip),
            None => local_address(&self.settings.controller)
                .map_err(|error| Failure::NoAddress(error.to_string())),
        }
    }

    /// Logs transitions only: an hour without a controller is one line.
    fn log(&mut self, failure: Option<&Failure>) {
        match failure {
            Some(failure) if self.last_failure.as_ref() != Some(failure) => {
                tracing::warn!(%failure, "cannot report to the controller");
            }
            None if self.last_failure.is_some() || !self.has_reported => {
                tracing::info!(controller = %self.settings.controller, "reporting to the controller");
            }
            _ => {}
        }
        self.has_reported |= failure.is_none();
        self.last_failure = failure.cloned();
    }
}

fn parse_response(status: StatusCode, body: &[u8]) -> Result<ReportAccepted, Failure> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| Failure::Malformed(error.to_string()));
    }
    let reason = answers::reason(body).unwrap_or_else(|| "no reason given".to_owned());
    Err(Failure::Refused(status.as_u16(), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_parsed_and_refusals_keep_their_reason() {
        let good = br#"{"node":"w1","generation":4,"lease":"6s"}"#;
        assert_eq!(
            parse_response(StatusCode::OK, good).unwrap().generation.0,
            4
        );
        let error = br#"{"error":"10.0.0.9 is not in the topology","code":"unknown_node"}"#;
        let failure = parse_response(StatusCode::FORBIDDEN, error)
            .unwrap_err()
            .to_string();
        assert!(
            failure.contains("403") && failure.contains("not in the topology"),
            "{failure}"
        );
        assert!(parse_response(StatusCode::OK, b"<html>").is_err());
    }
}
